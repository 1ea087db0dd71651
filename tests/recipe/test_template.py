import pytest
from pydantic import ValidationError

from coltrain.errors import RecipeError
from coltrain.recipe import Template
from coltrain.recipe.template import REGISTERED


def test_registered_templates_have_the_strings_of_their_engine_version():
    page = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>"
    )
    suffix = "<|endoftext|>" * 10
    strings = {
        name: (template.query_prefix, template.query_suffix, template.page_prompt)
        for name in REGISTERED
        for template in [Template.model_validate(name)]
    }
    assert strings == {
        "colqwen2-engine-0.3.1": ("Query: ", suffix, page + "\n"),
        "colqwen2-engine-0.3.4": ("Query: ", suffix, page + "<|endoftext|>"),
        "colqwen2-engine-0.3.13": ("", suffix, page + "<|endoftext|>"),
    }


def test_a_registered_name_may_repeat_its_own_strings():
    name = "colqwen2-engine-0.3.4"
    assert Template.model_validate({"name": name, **REGISTERED[name]}) == Template.model_validate(
        name
    )


def test_a_registered_name_with_other_strings_is_drift(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template={"name": "colqwen2-engine-0.3.13", "query_prefix": "Query: "})
    assert caught.value.code == "template-drift"
    assert caught.value.received == 'query_prefix = "Query: " in colqwen2-engine-0.3.13'
    assert caught.value.expected == '""'


def test_an_own_template_has_an_own_name_and_all_strings(with_values):
    own = {"name": "mine", "query_prefix": "", "query_suffix": "", "page_prompt": "<|image_pad|>"}
    assert with_values(model__template=own).model.template.name == "mine"


def test_an_own_template_without_all_strings_is_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template={"name": "mine", "query_prefix": "", "query_suffix": ""})
    assert caught.value.where == "recipe: model.template.page_prompt"
    assert caught.value.received == "nothing"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("colqwen2-engine-0.3.0", None),
        ("colqwen2-engine-0.3.3", "colqwen2-engine-0.3.1"),
        ("colqwen2-engine-0.3.12", "colqwen2-engine-0.3.4"),
        ("colqwen2-engine-0.3.18", "colqwen2-engine-0.3.13"),
        ("query", None),
    ],
)
def test_an_unknown_name_suggests_the_template_of_that_engine_version(with_values, name, near):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template=name)
    assert caught.value.code == "unknown-template"
    assert caught.value.suggestion == near
    assert "colqwen2-engine-0.3.1, colqwen2-engine-0.3.4 or" in caught.value.expected


def test_something_that_is_no_template_is_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template=["Query: "])
    assert caught.value.expected == (
        "the name of a template, or a mapping with name, query_prefix, query_suffix and page_prompt"
    )


def test_a_template_is_frozen():
    template = Template.model_validate("colqwen2-engine-0.3.4")
    with pytest.raises(ValidationError, match="frozen"):
        template.query_prefix = ""
