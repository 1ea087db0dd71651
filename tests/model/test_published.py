"""The same network in every published layout is the same network; what a load says about it."""

import json
import shutil

import pytest
import torch
from published_layouts import (
    ALPHA,
    LAYOUTS,
    RANK,
    merged,
    split_projection,
    tiny_adapter,
    tiny_tensors,
    write_adapter,
    write_modules,
    write_network,
)
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError
from coltrain.model.adapter import lora_layers
from coltrain.model.retriever import load

# float32; an adapter adds its part in another order than a merged matrix has it.
CLOSE = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of all layouts."""
    root = tmp_path_factory.mktemp("layouts")
    return {name: write(root / str(place)) for place, (name, write) in enumerate(LAYOUTS.items())}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The network under ColQwen2's own names."""
    tensors = merged(tiny_tensors(), tiny_adapter(tiny_tensors()))
    return load(write_network(tmp_path_factory.mktemp("own") / "own", "colqwen2", tensors))


def assert_all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_embeddings(
    written, expected, layout, uneven_pages, uneven_queries
):
    retriever = load(written[layout])
    assert_all_close(retriever.encode_pages(uneven_pages), expected.encode_pages(uneven_pages))
    assert_all_close(
        retriever.encode_queries(uneven_queries), expected.encode_queries(uneven_queries)
    )


def test_the_case_tells_the_adapter_and_the_bias(expected, tmp_path, uneven_queries):
    base = write_network(tmp_path / "base", "colqwen2", tiny_tensors())
    no_bias = tiny_tensors() | {"custom_text_proj.bias": torch.zeros(128)}
    [found] = load(base).encode_queries(uneven_queries[:1])
    [without] = load(write_network(tmp_path / "zero", "colqwen2", no_bias)).encode_queries(
        uneven_queries[:1]
    )
    [whole] = expected.encode_queries(uneven_queries[:1])
    assert (found - whole).abs().max() > 0.01
    assert (found - without).abs().max() > 0.01


REPORTS = {
    "colqwen2": ("colqwen2", "colqwen2", None),
    "released, sharded, with lm_head": ("colqwen2", "released", None),
    "transformers": ("colqwen2", "transformers", None),
    "native-5": ("transformers-native", "native-5", None),
    "native-4.53": ("transformers-native", "native-4.53", None),
    "native-released": ("transformers-native", "native-released", None),
    "adapter of 2024": ("adapter", "released", "released"),
    "adapter of today": ("adapter", "released", "colqwen2"),
    "adapter over a whole model": ("adapter", "released", "transformers"),
    "adapter over native-5": ("adapter", "native-5", "native-5"),
    "sentence-transformers, flat": ("sentence-transformers", "colqwen2", None),
    "sentence-transformers, ForRetrieval": ("sentence-transformers", "native-5", None),
    "sentence-transformers, adapter": ("sentence-transformers-adapter", "released", "colqwen2"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_report_says_what_was_found(written, layout):
    report = load(written[layout]).built.report
    assert (report.layout, report.names, report.adapter_names) == REPORTS[layout]
    assert report.unread == report.untrained == []
    assert report.constant == []
    assert len(report.hashes) == 59
    with_lm_head = "lm_head" in layout
    assert report.left_out == (["lm_head.weight"] if with_lm_head else [])
    assert report.probe.pages > 0.01
    assert report.probe.queries > 0.001
    is_adapter = report.adapter_names is not None
    assert (report.probe.adapter is not None) == is_adapter
    if is_adapter:
        of_projection = layout != "sentence-transformers, adapter"
        assert report.coverage == {
            "vision_tower": (0, 10),
            "language_model": (14, 14),
            "projection": (int(of_projection), 1),
        }
        assert report.probe.adapter > 0.001
        assert report.base.check == "name"
        assert report.base.name == f"{written[layout]}-base"
    json.dumps(report.to_json())


@pytest.mark.parametrize(
    "layout", ["adapter of 2024", "colqwen2", "sentence-transformers, adapter"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, None])
def test_every_weight_comes_in_the_type_that_was_asked_for(written, layout, dtype):
    model = load(written[layout], dtype=dtype).built.model
    assert {p.dtype for p in model.parameters()} == {dtype or torch.float32}


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "layout", ["adapter of 2024", "native-4.53", "sentence-transformers, flat"]
)
def test_files_of_every_type_load(written, tmp_path, layout, stored, uneven_queries):
    folder = shutil.copytree(written[layout], tmp_path / "half")
    for file in folder.rglob("*.safetensors"):
        save_file({key: t.to(stored) for key, t in load_file(file).items()}, file)
    retriever = load(folder)
    assert {p.dtype for p in retriever.built.model.parameters()} == {torch.float32}
    name = str(stored).removeprefix("torch.")
    assert name in retriever.built.report.file_types
    whole = load(written[layout]).encode_queries(uneven_queries)
    for one, other in zip(retriever.encode_queries(uneven_queries), whole, strict=True):
        assert (one * other).sum(-1).min() > 0.999
        assert not torch.equal(one, other)


def test_a_dense_layer_without_a_bias_has_a_zero_one(tmp_path, uneven_queries):
    backbone, projection = split_projection(tiny_tensors())
    folder = write_network(tmp_path / "flat", "colqwen2", backbone)
    retriever = load(write_modules(folder, {"weight": projection["weight"]}))
    assert (retriever.built.model.custom_text_proj.bias == 0).all()
    created = {"custom_text_proj.bias": "zero, as the Dense layer has none"}
    assert retriever.built.report.created == created


def test_a_dense_layer_stands_in_for_a_base_s_own_projection_and_its_adapter(tmp_path):
    # The published adapter's files with sentence-transformers' beside them.
    whole = merged(tiny_tensors(), tiny_adapter(tiny_tensors()))
    base = write_network(tmp_path / "base", "released", tiny_tensors())
    folder = write_adapter(tmp_path / "st", "released", tiny_adapter(tiny_tensors()), str(base))
    write_modules(folder, split_projection(whole)[1])
    built = load(folder).built
    assert torch.equal(built.model.custom_text_proj.weight, whole["custom_text_proj.weight"])
    assert len(lora_layers(built.model)) == 14
    assert "custom_text_proj" not in lora_layers(built.model)
    assert "the Dense layer takes the place" in built.report.notes[0]
    assert sorted(built.report.left_out) == ["custom_text_proj.bias", "custom_text_proj.weight"]


def test_a_base_can_be_given_in_place_of_the_named_one(written, expected, tmp_path, uneven_queries):
    folder = shutil.copytree(written["adapter of 2024"], tmp_path / "adapter")
    moved = shutil.copytree(f"{written['adapter of 2024']}-base", tmp_path / "moved")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "vidore/colqwen2-base"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    retriever = load(folder, base=moved)
    assert_all_close(
        retriever.encode_queries(uneven_queries), expected.encode_queries(uneven_queries)
    )
    base = retriever.built.report.base
    assert (base.name, base.named, base.check) == (
        str(moved),
        "vidore/colqwen2-base",
        "not known",
    )
    assert retriever.built.report.notes == [
        f"the adapter names vidore/colqwen2-base; whether {moved} has its weights is not known"
    ]


def test_a_given_base_is_compared_with_a_named_one_that_is_here(written, tmp_path):
    folder = written["adapter of 2024"]
    copy = shutil.copytree(f"{folder}-base", tmp_path / "copy")
    assert load(folder, base=copy).built.report.base.check == "hash"
    other = write_network(
        tmp_path / "other", "released", merged(tiny_tensors(), tiny_adapter(tiny_tensors()))
    )
    with pytest.raises(ModelError) as caught:
        load(folder, base=other)
    assert caught.value.code == "other-base"
    assert caught.value.where == f"{folder}, base {other}"


def test_a_base_with_a_model_that_is_no_adapter_is_refused(written):
    with pytest.raises(ModelError, match=r"\[base-of-no-adapter\]"):
        load(written["colqwen2"], base="tiny")


def test_the_base_of_an_adapter_is_read_at_the_revision_that_it_names(
    written, tmp_path, monkeypatch
):
    folder = shutil.copytree(written["adapter of 2024"], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "some/base", "revision": "abc123"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    snapshot = tmp_path / "models--some--base" / "snapshots" / "abc123def"
    shutil.copytree(f"{written['adapter of 2024']}-base", snapshot)
    asked = []

    def locate(name, revision=None):
        asked.append((name, revision))
        return snapshot

    monkeypatch.setattr("coltrain.model.base.locate_model", locate)
    built = load(folder).built
    assert asked == [("some/base", "abc123")]
    assert (built.base, built.base_revision) == ("some/base", "abc123")
    assert (built.report.base.revision, built.report.base.commit) == ("abc123", "abc123def")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_key_mapping_only_own_names_load(written, layout):
    names = REPORTS[layout][1:]
    if set(names) <= {"colqwen2", None}:
        assert load(written[layout], key_mapping=False).built.report.names == "colqwen2"
        return
    with pytest.raises(ModelError) as caught:
        load(written[layout], key_mapping=False)
    assert caught.value.code == "unmapped-key"
    assert caught.value.where.endswith(".safetensors")


def test_an_adapter_of_own_names_over_a_base_of_own_names_needs_no_mapping(tmp_path):
    base = write_network(tmp_path / "base", "colqwen2", tiny_tensors())
    adapter = tiny_adapter(tiny_tensors())
    folder = write_adapter(tmp_path / "adapter", "colqwen2", adapter, str(base))
    assert load(folder, key_mapping=False).built.report.adapter_names == "colqwen2"


def test_targets_written_for_other_names_mean_the_same_modules(written):
    lora = load(written["adapter over native-5"]).built.lora
    assert (lora.r, lora.alpha) == (RANK, ALPHA)
    assert (
        len(lora.target_modules.split("|")) == 15
    )  # spelled out: embedding_proj_layer is not ours
    assert load(written["adapter of 2024"]).built.lora.target_modules.count("|") == 7


def test_an_adapter_in_the_vision_tower_is_listed_there(tmp_path):
    base = write_network(tmp_path / "base", "colqwen2", tiny_tensors())
    module = "visual.blocks.0.attn.qkv"
    weight = tiny_tensors()[f"{module}.weight"]
    adapter = {
        f"{module}.lora_A.weight": torch.randn(RANK, weight.shape[1]),
        f"{module}.lora_B.weight": torch.randn(weight.shape[0], RANK),
    }
    folder = write_adapter(
        tmp_path / "adapter", "colqwen2", adapter, str(base), target_modules=["blocks.0.attn.qkv"]
    )
    report = load(folder).built.report
    assert report.coverage["vision_tower"] == (1, 10)
    assert report.coverage["language_model"] == (0, 14)
