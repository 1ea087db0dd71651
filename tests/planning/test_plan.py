"""What fits: answers move the right way, and the adapted recipe differs in nothing that moves the number."""

import json
from pathlib import Path

import pytest
import torch

from coltrain.errors import UsageError
from coltrain.model.attention import has_grouped_kernel
from coltrain.model.retriever import load
from coltrain.planning import counts, gpus, measuring
from coltrain.planning.advice import advice
from coltrain.planning.gpus import GPUS, Gpu, find_gpu, other_gpu, this_cpu
from coltrain.planning.measuring import measure_step, query_of
from coltrain.planning.plan import adapt, as_document, attention_on, make_plan
from coltrain.recipe import difference, load_recipe, result_hash

SMALL_CARD = Gpu("small", 0.64, (8, 0), 100, 10, 1000, 100)  # of which 0.6 are the context's


def tiny(*overrides, gpu=SMALL_CARD, gpus=1):
    return make_plan(load_recipe("tiny", list(overrides)), gpu, gpus)


@pytest.mark.slow
def test_more_memory_takes_a_larger_chunk():
    sizes = [
        tiny(gpu=Gpu("card", 0.6 + extra, (8, 0))).fit.chunk_size for extra in (0.025, 0.03, 0.2)
    ]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[1] < sizes[2] == 32


def test_a_card_on_which_nothing_fits_says_so():
    plan = tiny(gpu=Gpu("card", 0.601, (8, 0)))
    assert (plan.fit.fits, plan.fit.chunk_size) == (False, 0)
    said = advice(plan)[0]
    assert "not even one page fits" in said
    assert "(this moves the number) model.max_visual_tokens below 64" in said
    assert "batch.chunk_size" not in plan.changes


@pytest.mark.slow
def test_answers_move_the_right_way():
    base = tiny()
    # A smaller chunk may fit then, so that what is compared is a sample's.
    longer = tiny("model.max_visual_tokens=128").fit
    assert longer.memory.peak / longer.chunk_size > base.fit.memory.peak / base.fit.chunk_size
    assert tiny("batch.global_size=64", gpu=other_gpu(1, "8.0")).hours is None
    bigger = tiny("batch.global_size=64")
    assert (
        bigger.fit.memory.stages["gradient_caching"]
        == 2 * base.fit.memory.stages["gradient_caching"]
    )
    eight_bit = tiny("optimizer.name=paged_adamw_8bit").fit.memory.stages["optimizer"]
    assert eight_bit < 0.3 * base.fit.memory.stages["optimizer"]
    again = tiny("model.activation_checkpointing=true")
    per_sample = again.fit.memory.stages["language_model"] / again.fit.chunk_size
    assert per_sample < base.fit.memory.stages["language_model"] / base.fit.chunk_size
    assert tiny("train.steps=120").hours.middle > 1.8 * (
        base.hours.middle - base.evaluation_hours.middle
    )


def test_several_cards_share_the_batch():
    one, four = tiny(), tiny(gpus=4)
    assert four.fit.chunk_size <= 8
    assert four.step_seconds.middle < one.step_seconds.middle
    with pytest.raises(UsageError, match=r"batch-not-shared") as caught:
        tiny(gpus=5)
    assert "--gpus 4 or --gpus 8" in str(caught.value)


def test_what_cannot_move_the_number_is_adapted_and_the_rest_is_left():
    recipe = load_recipe("tiny", ["batch.chunk_size=1"])
    plan = make_plan(recipe, SMALL_CARD)
    assert plan.fit.chunk_size > 1
    adapted = adapt(recipe, plan.changes)
    assert {one.path for one in difference(recipe, adapted)} <= {
        "batch.chunk_size",
        "model.activation_checkpointing",
    }
    assert result_hash(adapted) == result_hash(recipe)


@pytest.mark.slow
def test_bfloat16_on_a_card_without_it_becomes_float16_and_says_that_this_can_move_the_number():
    recipe = load_recipe("tiny", ["precision.compute=bfloat16", "lora.dtype=bfloat16"])
    plan = make_plan(recipe, Gpu("old", 16, (7, 0)))
    assert {"precision.compute=float16", "lora.dtype=float32"} <= set(plan.changes)
    assert all(
        "can move the result" in reason
        for change, reason in plan.changes.items()
        if "dtype" in change or "compute" in change
    )
    assert plan.fit.setting.attention == "efficient"
    assert "torch==2.7.1" in " ".join(advice(plan))


@pytest.mark.slow
def test_counts_are_kept_and_a_broken_entry_is_counted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = tiny()
    files = sorted(counts.cache_folder("plan").iterdir())
    assert files
    called = []
    real = counts.passes
    monkeypatch.setattr(counts, "passes", lambda *args: called.append(1) or real(*args))
    assert tiny() == first
    assert not called
    for file in files:
        file.write_text("{")
    assert tiny() == first
    assert called


def test_measured_on_this_machine_memory_is_what_was_planned():
    plan = make_plan(load_recipe("tiny", ["batch.global_size=8"]), this_cpu())
    found = measure_step(plan, torch.device("cpu"))
    assert plan.memory_gib == pytest.approx(found.memory_gib, rel=0.1)


def test_a_measured_query_is_as_long_as_a_planned_one():
    plan = make_plan(load_recipe("tiny", ["batch.global_size=8"]), this_cpu())
    preparer = load("tiny").built.preparer
    for length in (plan.sizes.query_tokens, 33, 50):
        assert len(preparer.query_ids(query_of(preparer, length))) == length


def test_a_step_that_does_not_fit_though_it_was_planned_is_one_error_with_advice(
    coltrain, monkeypatch
):
    def too_much(*given, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has")

    monkeypatch.setattr(measuring, "cached_gradients", too_much)
    code, out, err = coltrain("plan", "tiny", "--gpu", "cpu", "--measure")
    assert (code, out) == (1, "")  # as of a run whose memory ran out
    assert "TrainingError [out-of-memory]" in err
    assert "received  CUDA out of memory. Tried to allocate 2.00 GiB.\n" in err
    assert "the plan says: " in err
    assert "one card reaches the gradient of the global batch" in err


def test_a_step_that_was_not_planned_to_fit_is_not_measured(coltrain, monkeypatch):
    monkeypatch.setattr(gpus, "this_cpu", lambda: gpus.Gpu("cpu", 0.01, None))
    code, _, err = coltrain("plan", "tiny", "--gpu", "cpu", "--measure")
    assert code == 2
    assert "[nothing-fits]: no step is measured" in err


def test_the_command_prints_tables_and_writes_the_recipe(coltrain, tmp_path):
    code, out, _ = coltrain("plan", "tiny", "--gpu", "t4", "--write", "new.yaml")
    assert code == 0
    assert "fits" in out
    assert "8-bit optimiser states" in out
    written = load_recipe(str(tmp_path / "new.yaml"))
    assert written.batch.chunk_size == 32
    code, _, err = coltrain("plan", "tiny", "--gpu", "t4", "--write", "new.yaml")
    assert code == 2
    assert "the file is there already" in err


@pytest.mark.slow
def test_the_document_holds_what_scripts_read(coltrain):
    code, out, _ = coltrain(
        "plan", "tiny", "--memory-gib", "0.601", "--capability", "7.0", "--json"
    )
    assert code == 1  # nothing fits
    document = json.loads(out)
    assert document["fits"] is False
    code, out, _ = coltrain("plan", "tiny", "--gpu", "a10", "--json")
    document = json.loads(out)
    for key in ("fits", "chunk_size", "memory_gib", "stages", "hours", "torch_wheel", "advice"):
        assert document[key]
    assert set(document["stages"]) >= {
        *("weights", "adapter", "optimizer", "vision", "language_model", "scores"),
        "gradient_caching",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "v100-33gb"], ["unknown-gpu", "v100-32gb"]),
        (["--gpu", "t4", "--memory-gib", "3"], ["not-a-card"]),
        (["--memory-gib", "3"], ["not-a-card", "--capability"]),
        (["--memory-gib", "inf", "--capability", "8.0"], ["not-a-card", "inf GiB"]),
        (["--memory-gib", "-1", "--capability", "8.0"], ["not-a-card", "-1 GiB"]),
        (["--memory-gib", "3", "--capability", "8.\N{SUPERSCRIPT TWO}"], ["not-a-card"]),
        (["--gpu", "t4", "--gpus", "0"], ["batch-not-shared", "0 cards", "--gpus 1"]),
        (["--gpu", "t4", "--gpus", "3"], ["--gpus 2 or --gpus 4"]),
        (["model.base=some/other"], ["unknown-base-to-plan", "some/other"]),
        (
            ["data.train=[some/set]", "train.steps=null", "train.epochs=1"],
            ["unknown-length", "--rows N"],
        ),
        (["lora.rank=3"], ["lora.r"]),
        (["--gpu", "h100", "--measure", "--write", "new.yaml"], ["not-this-card"]),
    ],
)
def test_what_is_typed_wrongly_is_answered(coltrain, arguments, words):
    if "--gpu" not in arguments and "--memory-gib" not in arguments:
        arguments = ["--gpu", "t4", *arguments]
    code, out, err = coltrain("plan", "tiny", *arguments)
    assert code == 2, (out, err)
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize("card", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_planned_kernel_is_the_one_that_attention_asks_for(monkeypatch, card, dtype):
    """Flash takes fewer key heads; for the other, keys and values are repeated, and so planned."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    takes_groups = has_grouped_kernel(torch.device("cuda"), dtype, is_masked=False)
    assert attention_on(card, dtype) == ("flash" if takes_groups else "efficient")


@pytest.mark.slow
@pytest.mark.reference
def test_what_eight_bit_states_change_is_said(coltrain):
    arguments = ("plan", "colqwen2-v100-paged-adamw-8bit", "--gpu", "v100-32gb")
    code, out, _ = coltrain(*arguments, "--json")
    assert code == 0
    [said] = [one for one in json.loads(out)["advice"] if "8-bit" in one]
    # Of LoRA's 37 million numbers, two states in 4 bytes or in one.
    assert said.startswith(
        "the 8-bit optimiser states take 0.070 GiB in place of 0.276: 0.21 GiB of "
    )
    assert "is no reason to choose them; optimizer.name=adamw rounds nothing" in said


def test_without_a_card_the_table_of_cards_is_named(coltrain):
    code, _, err = coltrain("plan", "tiny")
    assert code == 2
    assert "say which card to plan for" in err
    assert "v100-32gb" in err


@pytest.mark.slow
def test_a_v100_takes_chunks_of_eight_of_the_published_batch():
    plan = make_plan(load_recipe("colqwen2-v100"), find_gpu("v100-32gb"))
    document = as_document(plan, advice(plan))
    assert document["fits"]
    assert document["chunk_size"] >= 8
    assert document["torch_wheel"] == "torch==2.7.1"
    assert document["steps"] == 3694  # as checkpoint-3694 of the published model
    assert 4.0 < document["stages"]["weights"] < 4.3
    assert 5 < document["hours"] < 60
