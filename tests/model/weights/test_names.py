"""Each library's names for a tensor, there and back; two ways in one file are an error."""

import pytest

from coltrain.errors import ModelError
from coltrain.model.weights import NAMES, map_names

# The same three tensors in each way of naming.
SPELLINGS = {
    "colqwen2": ("visual.{}", "language_model.{}", "custom_text_proj.{}"),
    "released": ("visual.{}", "model.{}", "custom_text_proj.{}"),
    "transformers": ("model.visual.{}", "model.language_model.{}", "custom_text_proj.{}"),
    "native-5": ("vlm.visual.{}", "vlm.language_model.{}", "embedding_proj_layer.{}"),
    "native-4.53": (
        "vlm.model.visual.{}",
        "vlm.model.language_model.{}",
        "embedding_proj_layer.{}",
    ),
    "native-released": ("vlm.visual.{}", "vlm.model.{}", "embedding_proj_layer.{}"),
}
INSIDE = ("blocks.0.norm1.weight", "layers.27.mlp.up_proj.weight", "weight")
OURS = [form.format(inside) for form, inside in zip(SPELLINGS["colqwen2"], INSIDE, strict=True)]


def spelled(names):
    return [form.format(inside) for form, inside in zip(SPELLINGS[names], INSIDE, strict=True)]


def test_every_way_of_naming_is_tried():
    assert set(SPELLINGS) == set(NAMES)


@pytest.mark.parametrize("way", SPELLINGS)
@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_names_come_to_colqwen2s_and_back(way, prefix):
    keys = [prefix + key for key in spelled(way)]
    names, mapped = map_names(keys, prefix=prefix)
    assert names.name == way
    assert list(mapped.values()) == [prefix + name for name in OURS]
    assert [names.original(name) for name in OURS] == spelled(way)


def test_a_modules_name_goes_back_too():
    assert NAMES["native-5"].original("custom_text_proj") == "embedding_proj_layer"
    assert NAMES["released"].original("language_model.layers.0.mlp") == "model.layers.0.mlp"


@pytest.mark.parametrize("way", SPELLINGS)
def test_the_tied_output_layer_belongs_to_no_tensor(way):
    head = "vlm.lm_head.weight" if way.startswith("native") else "lm_head.weight"
    _, mapped = map_names([*spelled(way), head])
    assert mapped[head] is None


@pytest.mark.parametrize(
    "key", ["model.normal.weight", "layers.0.weight", "score.weight", "visualise.weight"]
)
def test_names_of_no_layout(key):
    with pytest.raises(ModelError) as caught:
        map_names({**dict.fromkeys(OURS, "one"), key: "two"})
    assert caught.value.code == "unknown-weight"
    assert (caught.value.where, caught.value.received) == ("two", key)


@pytest.mark.parametrize("other", [way for way in SPELLINGS if way != "colqwen2"])
def test_two_ways_in_one_file_are_refused_with_a_name_of_each(other):
    for keys in ([OURS[1], spelled(other)[1]], [spelled(other)[1], OURS[1]]):
        with pytest.raises(ModelError) as caught:
            map_names(dict.fromkeys([*keys, OURS[0]], "model.safetensors"))
        assert caught.value.code == "mixed-layouts"
        assert caught.value.where == "model.safetensors"
        for key in keys:
            assert key in caught.value.received


def test_without_mapping_only_colqwen2s_own_names_are_taken():
    assert map_names(OURS, key_mapping=False)[1] == dict(zip(OURS, OURS, strict=True))
    for way in SPELLINGS:
        if way == "colqwen2":
            continue
        with pytest.raises(ModelError) as caught:
            map_names(dict.fromkeys(spelled(way), "a file"), key_mapping=False)
        assert caught.value.code == "unmapped-key"
        assert caught.value.received in spelled(way)
    with pytest.raises(ModelError, match="lm_head"):
        map_names([*OURS, "lm_head.weight"], key_mapping=False)
