import pytest
import yaml

from coltrain.recipe import as_mapping, load_recipe, recipe_from_yaml, shipped_names, to_yaml


@pytest.mark.parametrize("name", shipped_names())
def test_what_is_written_is_the_same_recipe(name):
    recipe = load_recipe(name)
    assert recipe_from_yaml(to_yaml(recipe)) == recipe


def test_overrides_survive_being_written():
    recipe = load_recipe(
        "colqwen2-v100",
        [
            "train.steps=30",
            "data.train=[./a, {path: b/c, revision: d, split: e, layout: rows}]",
            "model.template={name: '5e-5', query_prefix: ' ', query_suffix: \"\\n\\t\", "
            "page_prompt: '# <|image_pad|>: é'}",
            "description='a: b # c'",
        ],
    )
    assert recipe_from_yaml(to_yaml(recipe)) == recipe


def test_every_key_is_spelled_out_in_the_order_of_the_schema():
    recipe = load_recipe("tiny")
    written = yaml.safe_load(to_yaml(recipe))
    assert list(written) == list(as_mapping(recipe))
    assert set(written["model"]["template"]) == {
        "name",
        "query_prefix",
        "query_suffix",
        "page_prompt",
    }


def test_another_yaml_reader_sees_the_same_numbers():
    # PyYAML takes 5e-05 for a text; so we write 5.0e-05.
    recipe = load_recipe("colqwen2-v0.1")
    assert yaml.safe_load(to_yaml(recipe)) == as_mapping(recipe)


def test_the_source_of_a_value_stands_behind_it():
    lines = to_yaml(load_recipe("colqwen2-v0.1")).splitlines()
    assert "  learning_rate: 5.0e-05  # default_tr_args.yaml at v0.3.1" in lines
    assert (
        "lora:  # train_colqwen2_model.yaml at v0.3.1: peft_config; also on the model card" in lines
    )
    assert max(len(line) for line in lines if line.startswith("  normalize")) <= 100


def test_a_source_with_line_breaks_stays_one_comment(with_values):
    recipe = with_values(sources={"lora.r": "a\nb\u2028c\x07 #d"})
    text = to_yaml(recipe)
    assert "  r: 32  # a b c #d\n" in text
    assert recipe_from_yaml(text) == recipe
