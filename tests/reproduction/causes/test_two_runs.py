"""Two runs that differ in one hidden thing: it is named, and nothing else is."""

from dataclasses import replace

import pytest
from run_on_paper import facts_of

from coltrain.data.images import SelectedImages
from coltrain.data.row_contents import RowContents
from coltrain.recipe import as_mapping, load_recipe, to_yaml
from coltrain.reproduction.causes import causes_text, find_causes, read_causes_side
from coltrain.reproduction.causes.rows import row_changes
from coltrain.training.run_folder import ROW_CONTENTS


def causes_of(a, b):
    return find_causes(read_causes_side(str(a)), read_causes_side(str(b)))


def keys(causes):
    return [one.key for one in causes.differences]


def test_two_runs_of_the_same_differ_in_nothing(paper_run):
    causes = causes_of(paper_run("a"), paper_run("b"))
    assert keys(causes) == []
    assert causes.headline == "Nothing that both sides record differs."
    assert any("chance or by what is not recorded" in remark for remark in causes.remarks)
    assert not any("not recorded" in why for _, why in causes.not_compared)


@pytest.mark.parametrize(
    ("path", "value", "key", "words"),
    [
        ("versions.torch", "2.7.1", "versions.torch", "last bits"),
        ("versions.transformers", "4.53.3", "versions.transformers", "defaults changed"),
        (
            "moments.exp_avg_sq",
            {"bfloat16": 1234},
            "precision.moments",
            "exp_avg float32, exp_avg_sq bfloat16",
        ),
        ("trained_weights_hash", "0000000000000000", "weights.start", "weights before training"),
        ("kernels.threads", 1, "kernels.threads", "threads"),
        ("kernels.float32_matmul_precision", "high", "kernels.float32_matmul_precision", "TF32"),
        ("reading.image_library", "Pillow 11.0.0", "reading.image_library", "Pillow 11.0.0"),
        ("device.name", "another", "hardware.name", "another"),
        ("parameters.by_dtype.trainable", {"bfloat16": 1234}, "precision.lora", "bfloat16"),
        ("probe.query_ids", [7, 1, 0, 0], "probe.query_ids", "[7, 1, 0, 0]"),
    ],
)
def test_one_hidden_thing_is_named(paper_run, change, path, value, key, words):
    a, b = paper_run("a"), paper_run("b")
    change(b, path, value)
    causes = causes_of(a, b)
    assert keys(causes) == [key]
    assert words in " ".join(causes_text(causes).split())


def test_a_page_that_changed_under_its_id_is_named_with_its_row(paper_run, rows):
    order = [*range(12)]
    order[5] = 4  # the file of page 4 stands where that of page 5 was
    swapped = replace(rows, images=SelectedImages(rows.images, order))
    a, b = paper_run("a"), paper_run("b", data=swapped)
    assert facts_of(a)["data"]["train"][0]["hash"] == facts_of(b)["data"]["train"][0]["hash"]
    causes = causes_of(a, b)
    assert keys(causes) == ["data.train[0].rows_changed"]
    (one,) = causes.differences
    assert one.details[0].startswith("1 of 12 rows changed")
    assert f"page {rows.page_ids[5]}" in one.details[1]
    assert f"page {rows.page_ids[5]}" in one.a
    # Without the rows the hash still says that something changed.
    (b / ROW_CONTENTS).unlink()
    (one,) = causes_of(a, b).differences
    assert one.details == (
        "ids, texts and order are the same; which rows changed is not recorded on both sides",
    )


def test_a_question_that_changed_is_quoted(paper_run, rows):
    queries = [replace(q, text="and now?") if n == 3 else q for n, q in enumerate(rows.queries)]
    a, b = paper_run("a"), paper_run("b", data=replace(rows, queries=queries))
    (one,) = causes_of(a, b).differences
    assert one.b == f"row 3, query {rows.queries[3].id}: 'and now?'"
    assert rows.queries[3].text in one.a


def test_another_order_is_told_from_other_rows(paper_run, rows):
    turned = replace(rows, rows=rows.rows[::-1])
    (one,) = causes_of(paper_run("a"), paper_run("b", data=turned)).differences
    assert one.key == "data.train[0].order"
    assert "the same rows in another order" in one.b


def test_a_hard_negative_that_changed_is_named_by_its_place():
    names = tuple(f"n{n}" for n in range(9))
    a, b = RowContents("train", "d"), RowContents("train", "d")
    a.rows.append(("q0", "p0", "", names))
    b.rows.append(("q0", "p0", "", (*names[:2], "other", *names[3:])))
    (found,) = row_changes(a, b).found
    assert found == ("row 0, query q0, hard negatives", "3: n2", "3: other")
    b.rows[0] = ("q0", "p0", "", names[:8])
    (found,) = row_changes(a, b).found
    assert found[1:] == ("9: n8", "8 of them")


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("recipe.train.seed", 9, "train.seed"),
        ("parameters.by_dtype.trainable", {"bfloat16": 1234}, "precision.lora"),
    ],
)
def test_first_weights_that_follow_from_a_cause_are_none_themselves(
    paper_run, change, path, value, key
):
    a, b = paper_run("a"), paper_run("b")
    change(b, path, value)
    change(b, "trained_weights_hash", "0000000000000000")
    assert keys(causes_of(a, b)) == [key]


def test_a_row_less_is_counted(paper_run, rows):
    fewer = replace(rows, rows=rows.rows[:-1])
    causes = causes_of(paper_run("a"), paper_run("b", data=fewer))
    (one,) = causes.differences
    assert one.details[0].startswith("1 of 12 rows changed")
    assert any(line.startswith("1 row: query") for line in one.details)


def test_a_template_is_told_by_the_string_that_differs(paper_run):
    recipes = [
        load_recipe("tiny", ["train.steps=4", f"model.template={name}"])
        for name in ("engine-0.3.12", "engine-0.3.3")
    ]
    runs = [
        paper_run(name, recipe=recipe, template_hash=name)
        for name, recipe in zip("ab", recipes, strict=True)
    ]
    causes = causes_of(*runs)
    (one,) = causes.differences
    assert (one.key, one.a, one.b) == ("template", "engine-0.3.12", "engine-0.3.3")
    (line,) = one.details
    assert line.startswith("page_prompt: ")
    assert line.endswith("<|im_end|>\\n'")


def test_negatives_come_first_and_are_said_as_a_sentence(paper_run):
    recipes = [
        load_recipe("tiny", ["train.steps=4", *more])
        for more in (["batch.negatives=2"], ["optimizer.learning_rate=1e-2"])
    ]
    runs = [paper_run(name, recipe=r) for name, r in zip("ab", recipes, strict=True)]
    causes = causes_of(*runs)
    assert causes.headline == (
        "You asked for a batch of 32, but each query met 1 negative, not 31."
    )
    assert keys(causes) == ["batch.negatives", "optimizer.learning_rate"]
    other_way = causes_of(*runs[::-1])
    assert "asked for a batch of 32, but each query met 1 negative, not 31" in other_way.headline


def test_what_an_old_run_did_not_record_is_not_compared(paper_run, change):
    a, b = paper_run("a"), paper_run("b")
    for path in ("moments", "kernels", "trained_weights_hash", "template_hash", "reading"):
        change(b, path, None)
    causes = causes_of(a, b)
    assert [key for key in keys(causes) if key != "precision.moments"] == []
    told = dict(causes.not_compared)
    assert told["weights.start"] == f"{b}: not recorded"
    assert "kernels.attention" in told


def test_a_moment_in_the_checkpoint_is_believed(paper_run):
    import torch
    from safetensors.torch import save_file

    a, b = paper_run("a"), paper_run("b")
    folder = b / "checkpoints" / "step-000004"
    folder.mkdir(parents=True)
    moment = torch.zeros(3, 2, dtype=torch.bfloat16)
    step = torch.tensor(4.0)
    save_file(
        {"0.exp_avg": moment, "0.exp_avg_sq": moment.clone(), "0.step": step},
        folder / "optimizer.safetensors",
    )
    (one,) = causes_of(a, b).differences
    assert one.key == "precision.moments"
    assert one.b == "bfloat16 (in the checkpoint; float32 in run.json)"


def test_a_recipe_beside_a_run_of_it_differs_in_nothing(paper_run, tmp_path):
    recipe = load_recipe("tiny", ["train.steps=4"])
    run = paper_run("a")
    file = tmp_path / "same.yaml"
    file.write_text(to_yaml(recipe))
    assert as_mapping(recipe) == facts_of(run)["recipe"]
    assert keys(causes_of(run, file)) == []


def test_a_folder_that_moved_is_no_other_data(paper_run, rows, change):
    moved = replace(
        rows, name="elsewhere", rows=[replace(row, source="elsewhere") for row in rows.rows]
    )
    here = replace(rows, rows=[replace(row, source=rows.name) for row in rows.rows])
    recipe = load_recipe("tiny", ["train.steps=4", "data.train=[./elsewhere]"])
    a, b = paper_run("a", data=here), paper_run("b", data=moved, recipe=recipe)
    assert facts_of(a)["data"]["train"][0]["hash"] != facts_of(b)["data"]["train"][0]["hash"]
    assert keys(causes_of(a, b)) == []


def test_batches_of_other_sizes_that_met_what_they_give_are_told_from_a_shortfall(paper_run):
    recipe = load_recipe("tiny", ["train.steps=4", "batch.global_size=16"])
    causes = causes_of(paper_run("a", recipe=recipe), paper_run("b"))
    assert causes.headline.startswith("Each query met 15 negatives in ")
    assert "of other sizes" in causes.headline
    assert "BiPali" not in causes.differences[0].known.effect
