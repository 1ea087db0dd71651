"""Steps of training equal those of colpali-engine 0.3.18's trainer: losses and adapters.

Its `ContrastiveTrainer`, collator and data set over transformers' `Trainer` on one side, coltrain's
own loop on the other, from the same base and adapter, on the same batches of uneven pages.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from compare_with_engine_trainer import TOLERANCES, compare, main, recipe_for
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2VLConfig

from coltrain.data import Collection, MinedNegative, Query, Row, write_collection
from coltrain.model.adapter import ADAPTER_NAME, LoraSettings, add_lora, lora_layers, save_adapter
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.locate import tiny_folder
from coltrain.recipe import load_recipe

pytestmark = [
    pytest.mark.reference,
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PAIRWISE = ("loss.name=pairwise", "loss.normalize=false")  # as the published models were trained
CASES = {
    "pairwise": PAIRWISE,
    "pairwise, normalised": ("loss.name=pairwise",),
    "softmax": ("loss.name=softmax", "loss.temperature=0.02"),
    "softmax, symmetric": ("loss.name=softmax", "loss.temperature=0.02", "loss.symmetric=true"),
    "pairwise, hard": ("loss.name=pairwise_hard_negatives", "loss.temperature=0.02"),
    "softmax, hard": ("loss.name=softmax_hard_negatives", "loss.temperature=0.02"),
}
NUM_PAGES, BATCH = 44, 4
WORDS = [
    "iron",
    "glass",
    "water",
    "stone",
    "light",
    "night",
    "paper",
    "north",
    "south",
    "red",
    "green",
    "blue",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random ColQwen2 of three layers: its embeddings nearly coincide, as fresh ones do."""
    folder = tmp_path_factory.mktemp("random") / "base"
    shutil.copytree(tiny_folder(), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 3, "intermediate_size": 192}
    del config["text_config"]["layer_types"]
    (folder / "config.json").write_text(json.dumps(config))
    model = ColQwen2(Qwen2VLConfig.from_dict(config))
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.08, generator=generator)
            elif "norm" not in name:
                parameter.normal_(std=0.02, generator=generator)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapter_over(base, folder, *, b_std):
    """An adapter of rank 8 and scale 2 in peft's format."""
    model = ColQwen2(Qwen2VLConfig.from_dict(json.loads((base / "config.json").read_text())))
    targets = load_recipe("colqwen2-v1.0").lora.target_modules
    settings = LoraSettings(r=8, alpha=16.0, dropout=0.1, target_modules=targets)
    add_lora(model, settings, seed=3)
    generator = torch.Generator().manual_seed(4)
    for layer in lora_layers(model).values():
        layer.lora_B[ADAPTER_NAME].weight.data.normal_(std=b_std, generator=generator)
    folder.mkdir()
    save_adapter(model, settings, str(base), folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """As if trained."""
    return adapter_over(base, tmp_path_factory.mktemp("adapter") / "adapter", b_std=0.02)


class Pages:
    """Noise of 4 to 36 visual tokens."""

    def __len__(self):
        return NUM_PAGES

    def __getitem__(self, number):
        draws = np.random.default_rng(number)
        rows, columns = draws.integers(2, 7, 2)
        return Image.fromarray(draws.integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every page with one query and two hard negatives; no text stands twice."""
    draws = np.random.default_rng(0)
    queries = [
        Query(f"q{number}", " ".join([*draws.choice(WORDS, number % 6), str(number)]))
        for number in range(NUM_PAGES)
    ]
    collection = Collection(
        name="noise",
        layout="rows",
        page_ids=[f"p{number}" for number in range(NUM_PAGES)],
        queries=queries,
        rows=[Row(number, number, "noise") for number in range(NUM_PAGES)],
        qrels={f"q{number}": {f"p{number}": 1} for number in range(NUM_PAGES)},
        images=Pages(),
    )
    negatives = {
        f"q{number}": [MinedNegative(f"p{(number + way) % NUM_PAGES}", 1.0) for way in (7, 19)]
        for number in range(NUM_PAGES)
    }
    folder = tmp_path_factory.mktemp("data") / "noise"
    write_collection(folder, collection, negatives)
    return folder


def recipe(adapter, data, base, *loss, **changes):
    options = {"steps": 10, "batch": BATCH, "chunk": 2, "negatives": 2} | changes
    return recipe_for(adapter, str(data), base=str(base), loss=loss, **options)


def moved(run, step):
    """The largest change of a number since the start."""
    now, start = run.adapters[step], run.adapters[0]
    return max((now[name] - value).abs().max().item() for name, value in start.items())


@pytest.mark.parametrize(
    ("name", "chunk", "warmup"),
    [*((name, 2, 0) for name in CASES), ("pairwise", BATCH, 3), ("softmax, hard", BATCH, 0)],
)
def test_one_and_ten_steps(name, chunk, warmup, adapter, data, base, tmp_path):
    found, ours, theirs = compare(
        recipe(adapter, data, base, *CASES[name], "loss.padding=zero", chunk=chunk, warmup=warmup),
        tmp_path,
    )
    assert [one.step for one in found] == list(range(1, 11))
    for one in found:
        loss, tensors = TOLERANCES[1] if one.step == 1 else TOLERANCES[10]
        assert one.loss < loss
        assert one.adapter < tensors
        assert one.within
    # Near each other by much less than they moved; a warm-up's first step has a rate of 0.
    assert found[9].update < 0.01
    assert moved(ours, 10) > 1e-3
    assert (moved(ours, 1) > 1e-4) == (warmup == 0)
    assert ours.counts == {"masked_duplicates": 0}
    assert theirs.counts["negative_matches_on_padded_pages"] > 20
    assert len(set(ours.losses)) == 10


def test_from_a_fresh_adapter(base, data, tmp_path):
    fresh = adapter_over(base, tmp_path / "fresh", b_std=0.0)
    found, ours, _ = compare(
        recipe(fresh, data, base, *PAIRWISE, "loss.padding=zero", steps=3), tmp_path
    )
    assert all(one.within for one in found)
    a, b = (
        {name: value for name, value in ours.adapters[1].items() if part in name}
        for part in ("lora_A", "lora_B")
    )
    # B was zero, so that A has no gradient in the first step, and all of B is the update.
    assert all(torch.equal(value, ours.adapters[0][name]) for name, value in a.items())
    assert all(value.abs().max() > 1e-4 for value in b.values())
    # Adam makes a whole step also of a gradient that is little more than rounding: .0012 on one processor.
    assert found[0].update < 0.005


def test_the_difference_of_masked_padding_is_seen_and_has_a_name(adapter, data, base, tmp_path):
    found, _, theirs = compare(recipe(adapter, data, base, *PAIRWISE, steps=2), tmp_path)
    assert not any(one.within for one in found)
    assert found[0].loss > 1e-4
    assert theirs.counts["negative_matches_on_padded_pages"] > 0


def test_masked_padding_is_equal_where_no_match_is_negative(data, tmp_path):
    adapter = adapter_over(tiny_folder(), tmp_path / "adapter", b_std=0.02)
    found, _, theirs = compare(
        recipe(adapter, "tiny:train", "tiny", *CASES["softmax"], steps=2, max_visual_tokens=64),
        tmp_path,
    )
    assert theirs.counts["negative_matches_on_padded_pages"] == 0
    assert all(one.within for one in found)


def test_the_script_prints_what_it_found(adapter, data, base, monkeypatch, capsys):
    words = [str(adapter), str(data), "--base", str(base), "--steps", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["compare", *words, "--loss", *PAIRWISE, "loss.padding=zero"])
    assert main() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["agrees"] is True
    assert len(document["losses"]["coltrain"]) == len(document["steps"]) == 1
    monkeypatch.setattr("sys.argv", ["compare", *words, "--loss", *PAIRWISE])
    assert main() == 1
    assert json.loads(capsys.readouterr().out)["negative_matches_on_padded_pages"] > 0
