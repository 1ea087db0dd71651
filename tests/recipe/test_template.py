import pytest
from pydantic import ValidationError

from coltrain.errors import RecipeError
from coltrain.recipe import Template
from coltrain.recipe.template import ALIASES, REGISTERED, name_of_versions, template_named

PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>"
AUGMENTATION = "<|endoftext|>" * 10


def test_registered_templates_have_the_strings_of_their_version():
    strings = {
        name: (template.query_prefix, template.query_suffix, template.page_prompt)
        for name in REGISTERED
        for template in [Template.model_validate(name)]
    }
    page = PAGE + "<|endoftext|>"
    assert strings == {
        "engine-0.3.3": ("Query: ", AUGMENTATION, PAGE + "\n"),
        "engine-0.3.3-inference": ("Query: ", "<pad>" * 10, PAGE + "\n"),
        "engine-0.3.12": ("Query: ", AUGMENTATION, page),
        "engine-0.3.13": ("", AUGMENTATION, page),
        "transformers-native": ("Query: ", AUGMENTATION + "\n", page),
        "mteb-2.12.15+engine-0.3.12": ("Query: Query: ", AUGMENTATION * 2, page),
        "mteb-2.12.15+engine-0.3.13": ("", AUGMENTATION * 2, page),
    }
    assert len(set(strings.values())) == len(strings)  # one name for each text


def test_an_alias_is_the_template_under_its_registered_name():
    assert template_named("colqwen2-engine-0.3.1").name == "engine-0.3.3"
    for alias, name in ALIASES.items():
        assert template_named(alias) == template_named(name)
        # As the card of a model folder spells it that was written under the old name.
        assert Template(name=alias, **REGISTERED[name]) == template_named(name)
    assert not set(ALIASES) & set(REGISTERED)


def test_an_alias_with_other_strings_is_drift():
    with pytest.raises(ValidationError, match="template-drift"):
        Template(name="colqwen2-engine-0.3.1", **REGISTERED["engine-0.3.12"])


@pytest.mark.parametrize(
    ("versions", "name"),
    [
        ("engine-0.3.0", None),
        ("engine-0.3.1", "engine-0.3.3"),
        ("engine-0.3.3", "engine-0.3.3"),
        ("engine-0.3.4", "engine-0.3.12"),
        ("engine-0.3.12", "engine-0.3.12"),
        ("engine-0.3.13", "engine-0.3.13"),
        ("engine-0.3.18", "engine-0.3.13"),
        ("mteb-1.38.32+engine-0.3.10", None),
        ("mteb-1.38.33+engine-0.3.10", "engine-0.3.12"),
        ("mteb-1.39.7+engine-0.3.13", "engine-0.3.13"),
        ("mteb-2.0.1+engine-0.3.12", "mteb-2.12.15+engine-0.3.12"),
        ("mteb-2.1.4+engine-0.3.13", "mteb-2.12.15+engine-0.3.13"),
        ("mteb-2.12.15+engine-0.3.18", "mteb-2.12.15+engine-0.3.13"),
        ("mteb-2.12.16+engine-0.3.12", "engine-0.3.12"),
        ("mteb-2.19.1+engine-0.3.13", "engine-0.3.13"),
        ("mteb-2.19.2+engine-0.3.13", "engine-0.3.12"),
        ("mteb-2.20.0+engine-0.3.18", "engine-0.3.12"),
        ("mteb-2.12.15+engine-0.3.3", None),
    ],
)
def test_versions_name_the_template_that_they_had(versions, name):
    assert name_of_versions(versions) == name
    for known in (*REGISTERED, *ALIASES):
        if known == versions:
            assert template_named(known).name == name


def test_a_registered_name_may_repeat_its_own_strings():
    name = "engine-0.3.12"
    assert Template.model_validate({"name": name, **REGISTERED[name]}) == Template.model_validate(
        name
    )


def test_a_registered_name_with_other_strings_is_drift(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template={"name": "engine-0.3.13", "query_prefix": "Query: "})
    assert caught.value.code == "template-drift"
    assert caught.value.received == 'query_prefix = "Query: " in engine-0.3.13'
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
        ("colqwen2-engine-0.3.3", "engine-0.3.3"),
        ("engine-0.3.7", "engine-0.3.12"),
        ("engine-0.3.18", "engine-0.3.13"),
        ("mteb-2.1.4+engine-0.3.14", "mteb-2.12.15+engine-0.3.13"),
        ("query", None),
    ],
)
def test_an_unknown_name_suggests_the_template_of_that_engine_version(with_values, name, near):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template=name)
    assert caught.value.code == "unknown-template"
    assert caught.value.suggestion == near
    assert "engine-0.3.3, engine-0.3.3-inference, engine-0.3.12, " in caught.value.expected


def test_something_that_is_no_template_is_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(model__template=["Query: "])
    assert caught.value.expected == (
        "the name of a template, or a mapping with name, query_prefix, query_suffix and page_prompt"
    )


def test_a_template_is_frozen():
    template = Template.model_validate("engine-0.3.12")
    with pytest.raises(ValidationError, match="frozen"):
        template.query_prefix = ""
