"""Exported folders: read back, equal, whole or not there at all."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError, UsageError
from coltrain.model.adapter import lora_layers
from coltrain.model.audit import PROBE_QUERIES, probe_pages
from coltrain.model.export import TARGETS, export_model, exporting
from coltrain.model.export.merging import MERGED_IN_FLOAT32, merged_tensors
from coltrain.model.export.model_card import Score, Training, write_model_card
from coltrain.model.export.publish import publish, refuse_without_token
from coltrain.model.folder import save_model
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import load

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(filled_built, tmp_path):
    """A model's folder as a run writes it."""
    save_model(filled_built, tmp_path / "trained")
    return tmp_path / "trained"


def embeddings(retriever):
    return [*retriever.encode_pages(probe_pages()), *retriever.encode_queries(PROBE_QUERIES)]


def largest(found, expected):
    pairs = zip(found, expected, strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


CASES = [(target, merge) for target in TARGETS for merge in (False, True)]


@pytest.mark.parametrize(("target", "merge"), CASES)
def test_coltrain_reads_what_it_exported_with_the_same_embeddings(target, merge, trained, tmp_path):
    exported, _built = export_model(trained, target, tmp_path / "out", merge=merge)
    assert exported.merged == (merge or target in ("transformers", "sentence-transformers"))
    found = embeddings(load(tmp_path / "out"))
    difference = largest(found, embeddings(load(trained)))
    assert difference == exported.difference
    assert difference <= (MERGED_IN_FLOAT32 if exported.merged else 0)
    # The adapter did something, so that a merge without it would be seen.
    assert largest(found, embeddings(load("tiny"))) > 0.01
    assert (exported.native is not None) == (target == "transformers")


@pytest.mark.parametrize("target", TARGETS)
def test_the_template_and_the_budget_travel(target, filled_built, tmp_path):
    other = load("tiny", template="engine-0.3.3", max_visual_tokens=32).built.preparer
    filled_built.preparer.template = other.template
    filled_built.preparer.max_visual_tokens = 32
    save_model(filled_built, tmp_path / "trained")
    with pytest.raises(ModelError, match="template"):
        load(tmp_path / "trained", template="engine-0.3.13")
    export_model(tmp_path / "trained", target, tmp_path / "out", merge=True)
    preparer = load(tmp_path / "out").built.preparer
    assert preparer.template.name == "engine-0.3.3"
    assert preparer.max_visual_tokens == 32
    with pytest.raises(ModelError, match="template"):
        load(tmp_path / "out", template="engine-0.3.13")


@pytest.mark.parametrize("target", ["colpali-engine", "sentence-transformers"])
def test_bfloat16_is_cast_once_after_a_sum_in_float32(target, trained, tmp_path):
    exported, built = export_model(
        trained, target, tmp_path / "out", merge=True, dtype=torch.bfloat16
    )
    wide = merged_tensors(built.model, torch.float32)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    name = "language_model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(tensors[name], wide[name].to(torch.bfloat16))
    assert exported.dtype == "bfloat16"
    # Rounding the weights of so small a model; it is measured and said.
    assert 1e-4 < exported.difference < 2e-2
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_merging_is_the_sum_in_float64(filled_built):
    layer = lora_layers(filled_built.model)["custom_text_proj"]
    parts = [
        layer.base_layer.weight,
        layer.lora_B["default"].weight,
        layer.lora_A["default"].weight,
    ]
    weight, up, down = (part.detach().double() for part in parts)
    expected = weight + layer.scaling["default"] * up @ down
    merged = merged_tensors(filled_built.model, torch.float32)["custom_text_proj.weight"]
    assert (expected - weight).abs().max() > 1e-3
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-7)


def test_an_adapter_whose_projection_was_drawn_gets_a_base_that_has_it(tmp_path, write_base):
    from coltrain.model.build import build_for_training
    from coltrain.recipe import load_recipe

    base = write_base(rename=lambda key: None if key.startswith("custom_text_proj") else key)
    recipe = load_recipe("tiny", [f"model.base={base}", "projection.start=normal", "train.seed=7"])
    built = build_for_training(recipe, torch.device("cpu"))
    for layer in lora_layers(built.model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    save_model(built, tmp_path / "trained")
    exported, _ = export_model(tmp_path / "trained", "colpali-engine", tmp_path / "out")
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str((tmp_path / "out" / "base").resolve())
    tensors = load_file(tmp_path / "out" / "base" / "model.safetensors")
    projection = built.model.custom_text_proj.base_layer.weight
    assert torch.equal(tensors["custom_text_proj.weight"], projection)
    assert any("base/" in note for note in exported.notes)
    # And a base without it is refused, whatever its name.
    shutil.rmtree(tmp_path / "out" / "base")
    shutil.copytree(base, tmp_path / "out" / "base")
    with pytest.raises(ModelError):
        load(tmp_path / "out")


def test_a_base_that_has_the_projection_is_named_and_not_copied(tmp_path, write_base):
    from coltrain.model.build import build_for_training
    from coltrain.recipe import load_recipe

    base = write_base()
    built = build_for_training(load_recipe("tiny", [f"model.base={base}"]), torch.device("cpu"))
    for layer in lora_layers(built.model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    save_model(built, tmp_path / "trained")
    export_model(tmp_path / "trained", "colpali-engine", tmp_path / "out")
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(base.resolve())
    assert not (tmp_path / "out" / "base").exists()


def test_a_published_adapter_is_exported_too(trained, tmp_path):
    export_model(trained, "colpali-engine", tmp_path / "published")
    for name in ("coltrain.json", "projection.safetensors", "hashes.json"):
        (tmp_path / "published" / name).unlink()
    export_model(
        tmp_path / "published", "sentence-transformers", tmp_path / "out", max_visual_tokens=64
    )
    assert largest(embeddings(load(tmp_path / "out")), embeddings(load(trained))) < 1e-5


def test_a_model_without_an_adapter_is_one_network_already(tmp_path):
    exported, _ = export_model("tiny", "colpali-engine", tmp_path / "out")
    assert exported.merged
    assert exported.difference == 0
    ours = load_file(tiny_folder() / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, ours[name])


def test_what_transformers_makes_of_it_is_measured(trained, tmp_path):
    exported, _ = export_model(trained, "transformers", tmp_path / "out")
    native = exported.native
    assert native.pages_as_shipped > 0.05
    assert native.pages_with_positions < 1e-5
    assert native.extra_query_tokens == 1  # the line break
    assert native.scores_as_shipped > 0.1
    assert f"{native.pages_as_shipped:.2g} off" in exported.notes[0]


@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_nothing_that_looks_like_a_model(existed, trained, tmp_path, monkeypatch):
    def fails(reference, out, merged, dtype):
        assert (out / "model.safetensors").is_file()
        raise ModelError("export-differs", "what was written does not give the embeddings.")

    monkeypatch.setattr(exporting, "_read_back", fails)
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with pytest.raises(ModelError, match="export-differs"):
        export_model(trained, "sentence-transformers", out)
    assert out.is_dir() == existed
    assert not existed or list(out.iterdir()) == []


def test_a_folder_that_gives_other_embeddings_is_refused(trained, tmp_path, monkeypatch):
    def forgets_the_adapter(model, dtype):
        tensors = merged_tensors(model, dtype)
        base = load_file(tiny_folder() / "model.safetensors")
        return {name: base[name].to(dtype) for name in tensors}

    monkeypatch.setattr(exporting.colpali_engine, "merged_tensors", forgets_the_adapter)
    with pytest.raises(ModelError, match=r"export-differs.*(\n.*)*at most 1e-05"):
        export_model(trained, "colpali-engine", tmp_path / "out", merge=True)


@pytest.mark.parametrize("target", TARGETS)
def test_the_model_card_says_what_a_user_needs(target, trained, tmp_path):
    exported, built = export_model(trained, target, tmp_path / "out")
    scores = [Score("pages", 120, 300, 0.8123, 0.78, 0.84)]
    training = Training("name: tiny\nseed: 0\n", 60, "nDCG@5", scores)
    write_model_card(exported, built, "a title", training, "me/model")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| pages | 120 | 300 | 81.2 [78.0, 84.0] |" in card
    assert "after 60 steps" in card
    assert built.weights_hash in card
    assert "engine-0.3.12" in card
    assert '`"Query: "`' in card
    assert "name: tiny\nseed: 0" in card
    assert f"--to {target}" in card
    assert "None" not in card
    assert "{{" not in card.replace("{{ ", "")
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(block, "card", "exec")
    for note in exported.notes:
        assert note in card
    without = tmp_path / "without"
    shutil.copytree(tmp_path / "out", without)
    write_model_card(exported, built, "a title", None, "me/model")
    assert "None came with the model" in (tmp_path / "out" / "README.md").read_text()


def test_bad_targets_and_folders_are_refused(trained, tmp_path):
    with pytest.raises(UsageError, match=r"unknown-target(.*\n)*.*colpali-engine"):
        export_model(trained, "colpali-engin", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out-not-empty(.*\n)*.*notes\.txt"):
        export_model(trained, "coltrain", tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_an_adapter_whose_base_is_missing_is_refused(trained, tmp_path):
    export_model(trained, "colpali-engine", tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter" / "base")
    with pytest.raises(ModelError, match=r"base"):
        export_model(tmp_path / "adapter", "transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Uploads:
    """The two calls of the hub's client that an upload makes."""

    done: list

    def create_repo(self, name, exist_ok):
        self.done.append(("create", name, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message):
        files = {str(file.relative_to(folder_path)) for file in folder_path.rglob("*.*")}
        self.done.append(("upload", repo_id, files))
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})()


def test_a_folder_is_uploaded_whole(trained, tmp_path, monkeypatch):
    Uploads.done = []
    monkeypatch.setattr("huggingface_hub.HfApi", Uploads)
    exported, _ = export_model(trained, "sentence-transformers", tmp_path / "out")
    assert publish(exported, "me/model") == "https://hub/me/model/commit/1"
    (_, name, _), (_, _, files) = Uploads.done
    assert name == "me/model"
    assert {"model.safetensors", "modules.json", "1_Dense/model.safetensors"} <= files


def test_an_adapter_over_a_folder_of_this_machine_is_not_uploaded(trained, tmp_path, monkeypatch):
    Uploads.done = []
    monkeypatch.setattr("huggingface_hub.HfApi", Uploads)
    exported, _ = export_model(trained, "colpali-engine", tmp_path / "out")
    with pytest.raises(ModelError, match=r"base-not-on-hub(.*\n)*.*--merge"):
        publish(exported, "me/model")
    assert Uploads.done == []


def test_an_upload_that_fails_leaves_the_folder(trained, tmp_path, monkeypatch):
    class Offline(Uploads):
        def create_repo(self, name, exist_ok):
            raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.HfApi", Offline)
    exported, _ = export_model(trained, "coltrain", tmp_path / "out", merge=True)
    with pytest.raises(ModelError, match=r"not-pushed(.*\n)*.*no route(.*\n)*.*hf upload me/model"):
        publish(exported, "me/model")
    assert load(tmp_path / "out")


def test_an_upload_needs_a_token_and_a_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match=r"no-hub-token(.*\n)*.*hf auth login"):
        refuse_without_token("me/model")
    with pytest.raises(UsageError, match="not-a-hub-name"):
        refuse_without_token("me/too/many")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    refuse_without_token("me/model")


def test_a_damaged_export_is_refused_when_it_is_loaded(trained, tmp_path):
    export_model(trained, "transformers", tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    name = "vlm.language_model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].T.contiguous()  # square: only its hash can tell
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="q_proj"):
        load(tmp_path / "out")
