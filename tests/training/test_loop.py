import json
import math
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file
from small_pages import small_collection

from coltrain.errors import DataError, RunError
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.results import read_results
from coltrain.model.retriever import load
from coltrain.training import collapse
from coltrain.training import loop as loop_module
from coltrain.training import step as step_module
from coltrain.training.events import EvaluationResult, EvaluationStarts, Notice, StepResult


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def losses(training):
    return [step.loss for step in of(StepResult, training.events())]


def lines(training, kind):
    return [line for line in training.run.lines() if line["kind"] == kind]


def record(training):
    return json.loads((training.run.path / "run.json").read_text())


EVALUATED = "eval.data=[small-test]"

# float32: sums of some hundred terms in another order, through two layers and three updates.
ROUNDING = 2e-4


@pytest.mark.slow
def test_three_events_can_be_taken_and_the_rest_left(start):
    training = start("train.steps=50")
    events = training.events()
    steps = list(islice(events, 3))
    assert [step.step for step in steps] == [1, 2, 3]
    assert all(math.isfinite(step.loss) and step.grad_norm > 0 for step in steps)
    assert {step.num_steps for step in steps} == {50}
    assert record(training)["state"] == "running"
    events.close()
    assert record(training)["state"] == "stopped"


@pytest.mark.slow
def test_an_evaluation_comes_before_the_first_step_at_the_interval_and_once_at_the_end(start):
    training = start("train.steps=4", "eval.every=2", EVALUATED)
    seen = []
    for event in training.events():
        if isinstance(event, StepResult):
            seen.append(f"step {event.step}")
        elif isinstance(event, EvaluationResult):
            seen.append(f"evaluation {event.step}")
    assert seen == [
        "evaluation 0",
        "step 1",
        "step 2",
        "evaluation 2",
        "step 3",
        "step 4",
        "evaluation 4",
    ]
    files = {file.name for file in (training.run.path / "evaluation").glob("*.json")}
    assert {"before.json", "step-000002.json", "final.json"} <= files
    assert not files & {"step-000000.json", "step-000004.json"}


@pytest.mark.slow
def test_a_run_that_ends_between_intervals_is_evaluated_at_its_end(start):
    training = start("train.steps=3", "eval.every=2", EVALUATED)
    assert [e.step for e in of(EvaluationResult, training.events())] == [0, 2, 3]


@pytest.mark.slow
def test_an_evaluation_says_how_much_it_will_encode_and_when_it_did(start):
    training = start("train.steps=1", EVALUATED)
    items = []
    training.on_item = lambda: items.append(None)
    starts = of(EvaluationStarts, training.events())
    assert [begun.num_items for begun in starts] == [6 + 6] * 2  # pages and queries
    assert len(items) == 2 * 12


@pytest.fixture(scope="module")
def expected_losses():
    """Of the run that others have to equal, filled by the first test that needs it."""
    return {}


def baseline(start, known):
    if not known:
        known["losses"] = losses(start())
    return known["losses"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("batch.chunk_size=1", marks=pytest.mark.slow),
        pytest.param("batch.chunk_size=3", marks=pytest.mark.slow),
        "batch.chunk_size=32",
        "data.num_workers=1",
        pytest.param("model.activation_checkpointing=true", marks=pytest.mark.slow),
    ],
)
def test_chunks_and_workers_leave_the_losses_alone(start, expected_losses, change):
    expected = baseline(start, expected_losses)
    assert expected[0] != pytest.approx(expected[2], rel=1e-3), "the model did not move"
    assert losses(start(change)) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["train.seed=1", "lora.dropout=0.3", "loss.temperature=0.03"])
def test_what_decides_the_result_moves_the_losses(start, expected_losses, change):
    expected = baseline(start, expected_losses)
    # The last one: an adapter that starts at zero drops nothing in the first step.
    assert losses(start(change))[2] != pytest.approx(expected[2], rel=ROUNDING)


@pytest.mark.slow
def test_a_run_can_be_had_twice(start):
    first, second = start(), start()
    torch.manual_seed(1)
    found = losses(first)
    torch.manual_seed(2)  # which nothing draws from
    assert losses(second) == found
    for name in ("adapter_model.safetensors", "projection.safetensors"):
        ours = load_file(first.run.model / name)
        theirs = load_file(second.run.model / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_dropout_is_keyed_by_the_seed_and_the_step_of_the_run(start, monkeypatch):
    keys = []
    really = step_module.cached_gradients

    def watched(*arguments, seed, step, **more):
        keys.append((seed, step))
        return really(*arguments, seed=seed, step=step, **more)

    monkeypatch.setattr(step_module, "cached_gradients", watched)
    list(start("train.seed=5").events())
    assert keys == [(5, 1), (5, 2), (5, 3)]


@pytest.mark.slow
def test_every_evaluation_meets_the_same_negatives(start, monkeypatch):
    met = []
    really = loop_module.evaluation_loss

    def watched(evaluation, collection, *more):
        met.append((collection.name, [row.page for row in collection.rows], more[1:]))
        return really(evaluation, collection, *more)

    monkeypatch.setattr(loop_module, "evaluation_loss", watched)
    # A learning rate of next to nothing: what is evaluated stays the same, and so must the loss.
    training = start("train.steps=2", "eval.every=1", "optimizer.learning_rate=1e-30", EVALUATED)
    found = [event.loss for event in of(EvaluationResult, training.events())]
    assert len(met) == 3
    assert met[0] == met[1] == met[2]
    assert found == [pytest.approx(found[0], rel=1e-6)] * 3


@pytest.mark.slow
def test_training_lowers_the_loss_and_changes_what_is_trained_only(start, tiny_retriever):
    training = start("train.steps=6", EVALUATED)
    before = {n: p.clone() for n, p in training.setup.built.model.named_parameters()}
    found = list(training.events())
    assert (first := found[1].loss) is not None
    assert of(EvaluationResult, found)[-1].loss < first
    for name, parameter in training.setup.built.model.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name


@pytest.mark.slow
def test_the_model_of_a_run_is_the_one_that_was_evaluated_last(start):
    training = start("train.steps=2", EVALUATED)
    final = of(EvaluationResult, training.events())[-1]
    retriever = load(training.run.path)
    pages = [training.setup.eval_data[0].page_image(n) for n in range(6)]
    again = evaluate(retriever, training.setup.eval_data[0])
    assert again.result == final.result
    assert [len(page) for page in again.pages] == [len(p) for p in retriever.encode_pages(pages)]
    assert read_results(training.run.path / "evaluation" / "final.json") == [final.result]


STEP_KEYS = {
    "kind",
    "step",
    "epoch",
    "loss",
    "grad_norm",
    "candidates_per_query",
    "masked_duplicates",
    "pages_per_second",
    "seconds",
    "wait_seconds",
    "lr",
}


def test_metrics_have_a_line_for_each_step_and_evaluation(start):
    training = start("train.steps=6", "optimizer.warmup_steps=2", EVALUATED)
    events = list(training.events())
    steps, evaluations = lines(training, "step"), lines(training, "evaluation")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in evaluations] == [0, 6]
    assert steps[0].keys() >= STEP_KEYS
    assert list(evaluations[0]) == [
        "kind",
        "step",
        "dataset",
        "nDCG@5",
        "loss",
        "measures",
        "seconds",
    ]
    results = of(StepResult, events)
    assert [line["loss"] for line in steps] == [result.loss for result in results]
    assert [line["epoch"] for line in steps] == [0, 0, 0, 0, 0, 1]  # 40 rows are five batches
    peak = training.recipe.optimizer.learning_rate
    rates = [0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]
    assert [line["lr"] for line in steps] == pytest.approx([peak * rate for rate in rates])
    for line, result in zip(evaluations, of(EvaluationResult, events), strict=True):
        assert line["dataset"] == "small-test"
        assert line["measures"] == result.result.measures
        assert line["nDCG@5"] == result.result.measures["nDCG@5"]
        assert line["loss"] == result.loss


def test_without_evaluation_data_nothing_is_evaluated(start):
    training = start("train.steps=1")
    assert not of(EvaluationResult, training.events())
    assert list((training.run.path / "evaluation").iterdir()) == []
    assert record(training)["state"] == "finished"


def test_the_record_says_all_that_a_reader_needs(start):
    training = start(EVALUATED)
    list(training.events())
    facts = record(training)
    assert {
        "format",
        "coltrain",
        "state",
        "recipe",
        "recipe_yaml",
        "result_hash",
        "full_hash",
        "versions",
        "device",
        "commit",
        "started",
        "finished",
        "seconds",
        "data",
        "plan",
        "candidates_per_query",
        "probe",
        "parameters",
        "projection_hash",
        "deviations",
        "warnings",
    } <= facts.keys()
    assert facts["format"] == 1
    assert facts["state"] == "finished"
    assert facts["seconds"] > 0
    assert facts["plan"] == {"num_steps": 3, "batches_per_epoch": 5}
    assert facts["candidates_per_query"] == {"min": 8, "median": 8, "max": 8}
    assert facts["deviations"] == []
    (recorded,) = facts["data"]["train"]
    assert training.setup.train_data[0].fingerprint().items() <= recorded.items()
    assert facts["data"]["eval"][0]["name"] == "small-test"


@pytest.mark.slow
def test_groups_leave_fewer_candidates_and_are_a_recorded_deviation(start):
    training = start("batch.global_size=16", "batch.negatives=4")
    list(training.events())
    assert [line["candidates_per_query"] for line in lines(training, "step")] == [4, 4, 4]
    facts = record(training)
    assert facts["candidates_per_query"] == {"min": 4, "median": 4, "max": 4}
    assert facts["deviations"] == [
        {
            "what": "batch.negatives = 4",
            "why": "each query met the pages of its group of 4, not the 16 of the global batch",
        }
    ]


@pytest.mark.slow
def test_groups_of_the_whole_batch_are_the_whole_batch(start, expected_losses):
    assert losses(start("batch.negatives=8")) == baseline(start, expected_losses)


@pytest.mark.slow
def test_queries_of_one_page_are_masked_and_counted(start):
    # Six pages; the first one has six further rows: twelve rows are a batch.
    training = start("data.train=[small-twins]", "batch.global_size=12", "train.steps=2")
    list(training.events())
    for line in lines(training, "step"):
        assert line["masked_duplicates"] == 7 * 6  # each of seven, for the other six
        # Five queries meet all twelve pages, seven their own and the five others.
        assert line["candidates_per_query"] == pytest.approx((5 * 12 + 7 * 6) / 12)
    assert record(training)["candidates_per_query"]["min"] == pytest.approx(8.5)


@pytest.mark.slow
def test_a_short_last_batch_is_a_batch_where_the_recipe_keeps_it(start, use_small_data):
    use_small_data["small-train"] = small_collection("small-train", 11)
    training = start("batch.drop_last=false")
    list(training.events())
    met = [line["candidates_per_query"] for line in lines(training, "step")]
    assert met == [8, 3, 8]


def test_steps_from_epochs_pass_over_the_data(start):
    training = start("train.epochs=2", "train.steps=null", "batch.global_size=20")
    assert training.num_steps == 4
    assert record(training)["plan"] == {"num_steps": 4, "batches_per_epoch": 2}


CHOICES = [
    ["precision.compute=bfloat16"],
    ["model.dtype=bfloat16", "lora.dtype=bfloat16"],
    ["model.dtype=bfloat16", "precision.compute=bfloat16"],
    ["model.dtype=float16"],
    ["model.dtype=float16", "precision.compute=bfloat16"],
    ["projection.start=normal", "projection.train=full"],
    ["projection.train=frozen"],
    ["loss.name=pairwise", "loss.temperature=1.0", "loss.normalize=false"],
    ["loss.name=sigmoid"],
    ["loss.symmetric=true", "loss.filter_threshold=0.95"],
    ["optimizer.schedule=cosine", "optimizer.max_grad_norm=null"],
    ["lora.init=kaiming", "lora.alpha=16"],
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CHOICES, ids=" ".join)
def test_every_choice_of_the_recipe_trains(start, overrides):
    training = start("train.steps=2", *overrides)
    steps = of(StepResult, training.events())
    assert all(math.isfinite(step.loss) and step.grad_norm > 0 for step in steps)
    assert record(training)["state"] == "finished"
    assert load(training.run.path).built.model.dim == 128


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_matrices_are_multiplied_in_what_the_recipe_says(start, stored, compute):
    training = start(f"model.dtype={stored}", f"precision.compute={compute}", "train.steps=1")
    seen = set()
    for name, module in training.setup.built.model.named_modules():
        if name.endswith(("_proj.base_layer", "fc1")):
            module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    list(training.events())
    assert seen == {getattr(torch, compute)}


def test_clipping_shortens_the_step_and_reports_the_norm_before(start):
    training = start("optimizer.max_grad_norm=1e-3", "train.steps=1")
    (step,) = training.events()
    assert step.grad_norm > 1e-3
    clipped = [p.grad for p in training.setup.trained.values() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(clipped).item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_a_collapsed_run_is_called_out_once_and_recorded(start, monkeypatch):
    def flat(settings, ignore, ranks):
        def loss(embeddings):
            total = sum(side.vectors.sum() for side in embeddings.values())
            return total * 1e-12 + math.log(len(ignore))

        return loss

    monkeypatch.setattr(step_module, "part_of_objective", flat)
    monkeypatch.setattr(collapse, "PATIENCE", 3)
    training = start("train.steps=8", "batch.global_size=2")
    notices = of(Notice, training.events())
    assert len(notices) == 1
    assert notices[0].text.startswith("the loss has stood at 0.6931 (ln N, N = candidates)")
    assert record(training)["warnings"] == [notices[0].text]


def test_settings_without_effect_are_said_and_stay_in_the_record(start, monkeypatch):
    training = start("train.steps=1", "checkpoint.keep=7")
    said = [notice.text for notice in of(Notice, training.events())]
    assert said == ["checkpoint.keep is read with checkpoint.every only"]
    assert record(training)["warnings"] == said


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["batch.global_size=64", "batch.drop_last=false"],
            "RunError [too-few-rows]: the training data has fewer rows than one global batch.\n"
            "  where     data.train\n"
            "  received  40 rows\n"
            "  expected  at least batch.global_size = 64\n"
            "  try       batch.global_size=40",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_written(start, tmp_path, overrides, text):
    with pytest.raises(RunError) as caught:
        start(*overrides, folder=tmp_path / "run")
    assert str(caught.value) == text
    assert not (tmp_path / "run").exists()


def test_a_loss_with_hard_negatives_wants_data_that_have_them(start, tmp_path):
    with pytest.raises(DataError) as caught:
        start("loss.name=softmax_hard_negatives", folder=tmp_path / "run")
    assert str(caught.value) == (
        "DataError [no-hard-negatives]: the loss wants hard negatives, and the training data has "
        "none.\n"
        "  where     small-train\n"
        "  received  40 rows without negatives\n"
        "  expected  rows with the ids of hard negatives, such as `coltrain mine` writes\n"
        "  try       coltrain mine DATA --with MODEL --out DATA2, or a loss without them"
    )
    assert not (tmp_path / "run").exists()


def test_a_foreign_folder_is_refused_before_anything_is_loaded(start, tmp_path, monkeypatch):
    monkeypatch.setattr(
        loop_module, "set_up", lambda *_, **__: pytest.fail("data and model were loaded")
    )
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match=r"\[folder-not-empty\]"):
        start(folder=tmp_path)


@pytest.mark.slow
def test_an_earlier_run_is_replaced_when_asked(start, tmp_path):
    folder = tmp_path / "run"
    list(start("train.steps=1", folder=folder).events())
    with pytest.raises(RunError, match=r"\[run-exists\]"):
        start(folder=folder)
    training = start("train.steps=2", folder=folder, replace=True)
    list(training.events())
    assert [line["step"] for line in lines(training, "step")] == [1, 2]


def test_an_error_of_any_kind_leaves_a_run_that_says_it_stopped(start, monkeypatch):
    training = start(EVALUATED)
    monkeypatch.setattr(loop_module, "evaluation_loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(training.events())
    facts = record(training)
    assert facts["state"] == "stopped"
    assert facts["stopped_by"] == "division by zero"
