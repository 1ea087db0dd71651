from coltrain.recipe import difference_rows, list_rows, load_recipe, recipe_from_yaml, show_text


def test_the_list_has_a_row_for_each_shipped_recipe():
    rows = {row["recipe"]: row for row in list_rows()}
    assert len(rows) == 6
    row = rows["colqwen2-v1.0"]
    assert row["data"] == ["vidore/colpali_train_set"]
    assert (row["epochs"], row["steps"], row["global_batch_size"]) == (5.0, None, 256)
    assert all(row["description"] for row in rows.values())
    assert len({row["result_hash"] for row in rows.values()}) == 6


def test_what_is_shown_is_a_recipe_with_its_overrides():
    shown = recipe_from_yaml(show_text("tiny", ["lora.r=8"]))
    assert shown == load_recipe("tiny", ["lora.r=8"])


def test_differences_that_affect_the_result_come_first():
    rows = difference_rows("colqwen2-v0.1", "colqwen2-v1.0")
    affected = [row["affects_result"] for row in rows]
    assert affected == sorted(affected, reverse=True)
    assert {row["key"]: (row["left"], row["right"]) for row in rows}["train.epochs"] == (1.0, 5.0)


def test_a_recipe_on_disk_can_be_compared(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(show_text("tiny", ["lora.r=8", "logging.every=2"]))
    assert difference_rows("tiny", file) == [
        {"key": "lora.r", "left": 32, "right": 8, "affects_result": True},
        {"key": "logging.every", "left": 10, "right": 2, "affects_result": False},
    ]
