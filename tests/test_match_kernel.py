"""A fused kernel names the winners; scores and gradients are those of `maxsim` all the same."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from half_matches import half_kernel
from reference_loops.ragged import ragged

from coltrain import match_kernel as module
from coltrain.errors import RunError
from coltrain.late_interaction import maxsim
from coltrain.losses import LOSSES
from coltrain.match_kernel import SHORTFALL, refuse_missing_kernel, why_no_kernel
from coltrain.recipe import load_recipe, result_hash
from coltrain.training import objective as objectives
from coltrain.training.maxsim_kernel import maxsim_facts, with_kernel_settled

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DIM = 16


def unit(embeddings):
    return torch.nn.functional.normalize(embeddings, dim=-1)


def uneven(rubbish=1e6):
    """Uneven queries and pages of unit vectors; what padding holds does not fit into float16."""
    queries, query_mask = ragged([3, 20, 1, 5], DIM, seed=1, dtype=torch.float64)
    pages, page_mask = ragged([9, 4, 11, 6, 1], DIM, seed=2, dtype=torch.float64)
    queries = unit(queries).masked_fill(~query_mask[..., None], rubbish)
    pages = unit(pages).masked_fill(~page_mask[..., None], rubbish)
    return queries.requires_grad_(), pages.requires_grad_(), query_mask, page_mask


def gradients(scores, *inputs):
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view_as(scores)
    return torch.autograd.grad((scores * weights).sum(), inputs)


@pytest.mark.parametrize("cut_padding_from", [0, 2**62])
@pytest.mark.parametrize("pages_per_block", [None, 2])
def test_values_and_gradients_equal_those_of_no_kernel(
    monkeypatch, cut_padding_from, pages_per_block
):
    monkeypatch.setattr("coltrain.late_interaction.CUT_PADDING_FROM", cut_padding_from)
    queries, pages, query_mask, page_mask = uneven()
    kernel = half_kernel()
    plain = maxsim(queries, pages, query_mask, page_mask)
    ours = maxsim(
        queries, pages, query_mask, page_mask, kernel=kernel, pages_per_block=pages_per_block
    )
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-13)  # float64 sums in another order
    for got, expected in zip(
        gradients(ours, queries, pages), gradients(plain, queries, pages), strict=True
    ):
        assert expected.norm() > 0
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    assert len(kernel.forward.calls) == 1


def test_the_kernel_is_handed_half_precision_masks_and_a_power_of_two_of_tokens():
    queries, pages, query_mask, page_mask = uneven()
    kernel = half_kernel()
    maxsim(queries, pages, query_mask, page_mask, kernel=kernel)
    [(half_queries, half_pages, handed, page_mask_too)] = kernel.forward.calls
    assert half_queries.shape == (4, 32, DIM)  # 20 tokens
    assert half_queries.dtype == half_pages.dtype == torch.float16
    assert torch.isfinite(half_queries).all()
    assert not half_pages[~page_mask].any()
    assert torch.equal(handed[:, :20], query_mask)
    assert not handed[:, 20:].any()
    assert torch.equal(page_mask_too, page_mask)
    assert not half_queries.requires_grad

    maxsim(queries[:, :1], pages, kernel=kernel)
    assert kernel.forward.calls[-1][0].shape == (4, 16, DIM)
    assert kernel.forward.calls[-1][2].sum() == 4
    assert kernel.forward.calls[-1][3] is None


def test_tokens_nearer_than_half_precision_cost_at_most_the_shortfall():
    # A query token between two page tokens that float16 cannot tell apart: the first is taken, the
    # second is better.
    query = unit(torch.tensor([[[1.0, 1e-4]]], dtype=torch.float64))
    page = unit(torch.tensor([[[1.0, 0.0], [1.0, 1e-4]]], dtype=torch.float64))
    exact, ours = maxsim(query, page), maxsim(query, page, kernel=half_kernel())
    assert 0 < (exact - ours).item() < SHORTFALL

    generator = torch.Generator().manual_seed(0)
    queries = unit(torch.randn(8, 40, 128, generator=generator, dtype=torch.float64))
    # Tokens that lie near to each other, as those of a page's white parts do.
    near = torch.randn(1, 1, 128, generator=generator, dtype=torch.float64)
    pages = torch.randn(8, 300, 128, generator=generator, dtype=torch.float64)
    pages = unit(near + 1e-3 * pages)
    missing = maxsim(queries, pages) - maxsim(queries, pages, kernel=half_kernel())
    assert missing.max() > 1e-6  # the case bites
    assert missing.min() > -1e-12
    assert missing.max() <= 40 * SHORTFALL


@pytest.mark.parametrize("broken", ["page", "query"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_shows_in_the_score(broken, value):
    queries, pages, query_mask, page_mask = (part.detach().clone() for part in uneven(rubbish=0.0))
    (pages if broken == "page" else queries)[1, 1, 3] = value
    scores = maxsim(queries, pages, query_mask, page_mask, kernel=half_kernel())
    of_broken = scores[:, 1] if broken == "page" else scores[1]
    assert not torch.isfinite(of_broken).any()
    assert torch.isfinite(scores).any()


@pytest.mark.parametrize("padding", ["masked", "zero"])
@pytest.mark.parametrize(
    ("name", "symmetric"),
    # Hard negatives have no symmetric loss.
    [(name, False) for name in LOSSES] + [(name, True) for name in LOSSES if "hard" not in name],
)
def test_every_loss_is_the_same_with_the_kernel(name, padding, symmetric):
    queries, pages, query_mask, page_mask = uneven(rubbish=0.0)
    pages, page_mask = pages[:4], page_mask[:4]
    inputs = [queries, pages, query_mask, page_mask]
    if "hard" in name:
        inputs += [pages.detach().unsqueeze(1), page_mask.unsqueeze(1)]
    options = {"padding": padding, "symmetric": symmetric, "temperature": 0.1}
    kernel = half_kernel()
    plain = LOSSES[name](*inputs, **options)
    ours = LOSSES[name](*inputs, **options, kernel=kernel)
    assert len(kernel.forward.calls) == 1 + symmetric
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    for got, expected in zip(
        torch.autograd.grad(ours, (queries, pages)),
        torch.autograd.grad(plain, (queries, pages)),
        strict=True,
    ):
        assert expected.norm() > 0
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.fixture
def card(monkeypatch):
    """A GPU of a given capability, and the package."""

    def of(capability, *, installed=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

        def found():
            if not installed:
                raise ImportError("No module named 'late_interaction_kernels'")
            return half_kernel()

        monkeypatch.setattr(module, "match_kernel", found)
        monkeypatch.setattr("coltrain.training.maxsim_kernel.match_kernel", found)

    return of


def test_the_card_the_size_and_the_package_decide(card):
    card((7, 5))
    assert why_no_kernel(CUDA, 128) is None
    assert why_no_kernel(CUDA, 320) == "projection.dim = 320, expected 256 at most"
    assert why_no_kernel(CPU, 128) == "cpu is no NVIDIA GPU"
    card((7, 0))
    assert why_no_kernel(CUDA, 128) == "compute capability 7.0, expected 7.5 at least"
    card((9, 0), installed=False)
    assert "cannot be imported (No module named" in why_no_kernel(CUDA, 128)


def test_auto_becomes_what_the_device_has_and_is_hashed_so(card):
    recipe = load_recipe("tiny", ["loss.maxsim_kernel=auto"])
    card((8, 0))
    assert with_kernel_settled(recipe, CUDA).loss.maxsim_kernel == "fused"
    assert maxsim_facts(with_kernel_settled(recipe, CUDA).loss) == "late-interaction-kernels 0.0"
    card((7, 0))
    on_v100 = with_kernel_settled(recipe, CUDA)
    assert on_v100.loss.maxsim_kernel == "none"
    assert maxsim_facts(on_v100.loss) == "torch"
    assert result_hash(on_v100) == result_hash(load_recipe("tiny"))
    fused = load_recipe("tiny", ["loss.maxsim_kernel=fused"])
    assert with_kernel_settled(fused, CPU) is fused
    assert result_hash(fused) != result_hash(on_v100)


def test_asked_for_by_name_nothing_takes_its_place(card, coltrain):
    card((7, 0))
    with pytest.raises(RunError) as raised:
        refuse_missing_kernel(CUDA, 128)
    assert str(raised.value) == (
        "RunError [no-maxsim-kernel]: the fused kernel of MaxSim cannot be used here.\n"
        "  where     loss.maxsim_kernel = fused\n"
        "  received  compute capability 7.0, expected 7.5 at least\n"
        "  expected  an NVIDIA GPU of compute capability 7.5 or later, and late-interaction-kernels\n"
        "  try       pip install 'coltrain[kernels]', or loss.maxsim_kernel=none; auto takes it "
        "where it can be had"
    )
    code, _, err = coltrain("train", "tiny", "loss.maxsim_kernel=fused", "--out", "run")
    assert code == 2
    assert "no-maxsim-kernel" in err
    assert "cpu is no NVIDIA GPU" in err


def test_a_step_s_loss_asks_the_kernel_that_the_recipe_names(monkeypatch):
    import numpy as np

    from coltrain.training.gradient_cache import Embeddings

    kernel = half_kernel()
    monkeypatch.setattr(objectives, "match_kernel", lambda: kernel)
    queries, pages, query_mask, page_mask = uneven(rubbish=0.0)
    batch = {"query": Embeddings(queries, query_mask), "page": Embeddings(pages, page_mask)}
    ignore = np.zeros((4, 5), dtype=bool)
    values = {}
    for choice in ("none", "fused"):
        settings = load_recipe("tiny", [f"loss.maxsim_kernel={choice}"]).loss
        values[choice] = objectives.objective(settings, ignore)(batch)
    assert len(kernel.forward.calls) == 1
    torch.testing.assert_close(values["fused"], values["none"], rtol=0, atol=1e-12)


@pytest.mark.reference
def test_the_kernel_itself_agrees_with_what_stands_for_it_here():
    # Triton's interpreter runs the kernel's own code on a CPU. It has to be asked before triton is
    # imported, and the search for the fastest tile, which times a GPU, has to be left out.
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["agrees", "agrees"]


INTERPRETED = """
import torch
from half_matches import half_kernel
from late_interaction_kernels import forward
from reference_loops.ragged import ragged

from coltrain.late_interaction import maxsim
from coltrain.match_kernel import match_kernel

forward._maxsim_fwd_kernel.configs = forward._maxsim_fwd_kernel.configs[:1]
forward._maxsim_fwd_kernel.early_config_prune = None
queries, query_mask = ragged([3, 17, 1], 16, seed=1, dtype=torch.float64)
pages, page_mask = ragged([40, 4, 11], 16, seed=2, dtype=torch.float64)
queries, pages = (torch.nn.functional.normalize(part, dim=-1) for part in (queries, pages))
for mask in (page_mask, None):
    theirs = match_kernel().winners(queries, pages, query_mask, mask)
    ours = half_kernel().winners(queries, pages, query_mask, mask)
    real = query_mask[:, None].expand_as(ours)
    assert torch.equal(theirs[real], ours[real]), (theirs, ours)
    scores = maxsim(queries, pages, query_mask, mask, kernel=match_kernel())
    torch.testing.assert_close(scores, maxsim(queries, pages, query_mask, mask), atol=1e-12, rtol=0)
    print("agrees")
"""


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("late_interaction_kernels") is None, reason="an extra: kernels")
def test_on_a_gpu_the_kernel_gives_the_scores_and_gradients_of_no_kernel():
    queries, pages, query_mask, page_mask = (part.detach().to(CUDA) for part in uneven())
    queries, pages = queries.requires_grad_(), pages.requires_grad_()
    plain = maxsim(queries, pages, query_mask, page_mask)
    ours = maxsim(queries, pages, query_mask, page_mask, kernel=module.match_kernel())
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    for got, expected in zip(
        gradients(ours, queries, pages), gradients(plain, queries, pages), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
