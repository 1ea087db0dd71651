"""Configuration files that are cut off or hold other values: one clear error, of `inspect` and of the doctor."""

import json
import shutil
from pathlib import Path

import pytest

from coltrain.model.files import read_json
from coltrain.model.kinds import KINDS, wrong_kind
from coltrain.model.locate import tiny_folder
from coltrain.planning.bases import base_config
from coltrain.recipe import load_recipe
from coltrain.reproduction.targets import read_target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny base."""
    return Path(shutil.copytree(tiny_folder(), tmp_path / "model"))


def put(file: Path, key: str, value: object) -> None:
    content = json.loads(file.read_text())
    *path, last = key.split(".")
    part = content
    for one in path:
        part = part[one]
    part[last] = value
    file.write_text(json.dumps(content))


def error_text(where: Path, received: str, expected: str) -> str:
    return (
        "ModelError [broken-model-file]: a file of the model cannot be read.\n"
        f"  where     {where}\n"
        f"  received  {received}\n"
        f"  expected  {expected}\n"
        "  try       download or copy it again; it may have been cut off"
    )


@pytest.mark.parametrize("command", ["inspect", "doctor"])
@pytest.mark.parametrize(
    ("content", "received"),
    [
        ('{"model": {"type', "Unterminated string starting at: line 1 column 12 (char 11)"),
        ("[1, 2]", "a JSON list"),
        ('"text"', "a JSON str"),
        ("null", "a JSON NoneType"),
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("version https://git-lfs.github.com/spec/v1", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json", "config.json"])
def test_a_file_that_is_no_json_object_is_named(coltrain, folder, command, name, content, received):
    (folder / name).write_text(content)
    finished = coltrain(command, folder)
    assert finished.code == 2
    assert finished.err.strip() == error_text(folder / name, received, "one JSON object")
    assert finished.out == ""


@pytest.mark.parametrize("command", ["inspect", "doctor"])
@pytest.mark.parametrize(
    ("name", "key", "value", "received", "expected"),
    [
        ("tokenizer_config.json", "model_max_length", "x", '"x"', "a number"),
        ("preprocessor_config.json", "size", 5, "5", "a JSON object"),
        ("preprocessor_config.json", "size.shortest_edge", "x", '"x"', "a whole number above 0"),
        ("preprocessor_config.json", "merge_size", 0, "0", "a whole number above 0"),
        ("preprocessor_config.json", "image_mean", ["a"], '["a"]', "a number, or three"),
        ("config.json", "text_config", 5, "5", "a JSON object"),
        ("config.json", "vision_config.depth", "2", '"2"', "a whole number above 0"),
        ("config.json", "architectures", "ColQwen2", '"ColQwen2"', "a list of texts"),
    ],
)
def test_a_setting_of_another_kind_is_named(
    coltrain, folder, command, name, key, value, received, expected
):
    put(folder / name, key, value)
    finished = coltrain(command, folder)
    assert finished.code == 2
    assert finished.err.strip() == error_text(folder / name, f"{key} {received}", expected)


@pytest.mark.parametrize("command", ["inspect", "doctor"])
@pytest.mark.parametrize(
    ("key", "value"), [("model", 3), ("added_tokens", 5), ("model.vocab", [1]), ("model.merges", 5)]
)
def test_a_tokenizer_that_is_none_inside(coltrain, folder, command, key, value):
    put(folder / "tokenizer.json", key, value)
    finished = coltrain(command, folder)
    lines = finished.err.splitlines()
    assert finished.code == 2
    assert lines[0] == (
        "ModelError [no-processor]: the model's folder has no tokenizer or image processor that can "
        "be read."
    )
    assert lines[1] == f"  where     {folder}"
    assert lines[2].startswith(("  received  Exception: ", "  received  TypeError: "))
    assert lines[3].split(maxsplit=1)[1].startswith("tokenizer.json, tokenizer_config.json")
    assert lines[-1] == "  try       copy them from the base, or download them again"


def test_other_patches_than_qwen2_vl_has(coltrain, folder):
    put(folder / "preprocessor_config.json", "patch_size", 16)
    finished = coltrain("inspect", folder)
    assert finished.code == 2
    assert finished.err.strip() == error_text(
        folder / "preprocessor_config.json", "patch_size 16", "14, as Qwen2-VL has it"
    )


def test_a_configuration_that_transformers_refuses(coltrain, folder):
    put(folder / "config.json", "text_config.layer_types", 5)
    finished = coltrain("inspect", folder)
    assert finished.code == 2
    assert "received  Validation error for field 'layer_types'" in finished.err
    assert "expected  Qwen2-VL's configuration" in finished.err


def test_a_card_without_its_strings(tmp_path, coltrain):
    folder = tmp_path / "model"
    folder.mkdir()
    card = {"format": 1, "base": "tiny", "base_revision": None, "base_weights_hash": "0"}
    card |= {"backbone_dtype": "float32", "backbone_rounded_to": "float32", "projection_dim": 128}
    card |= {"projection_hash": "0", "max_visual_tokens": 64, "template": {"name": "mine"}}
    (folder / "coltrain.json").write_text(json.dumps(card))
    finished = coltrain("inspect", folder)
    assert finished.code == 2
    assert "ModelError [unknown-card]" in finished.err
    assert "no template.query_prefix, template.query_suffix, template.page_prompt" in finished.err


def test_a_broken_file_of_a_training_is_left_out_and_said(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "train.py").write_text("import colpali_engine\n")
    (folder / "adapter_config.json").write_text('{"target_modules": 5}')
    target = read_target(str(folder))
    assert "adapter_config.json: configuration" not in target.read
    assert "adapter_config.json: target_modules 5, where text, or a list of texts was expected" in (
        target.not_read
    )


def test_what_ships_is_of_its_kinds():
    read = [name for name in KINDS if (tiny_folder() / name).is_file()]
    assert len(read) >= 3
    for name in read:
        assert wrong_kind(name, read_json(tiny_folder() / name)) is None


def test_the_real_base_and_adapter_are_of_their_kinds():
    config = base_config("vidore/colqwen2-base").to_dict()
    assert config["vision_config"]["depth"] == 32
    assert wrong_kind("config.json", config) is None
    wrapped = {
        "architectures": ["ColQwen2ForRetrieval"],
        "embedding_dim": 128,
        "vlm_config": config,
    }
    assert wrong_kind("config.json", wrapped) is None
    wrapped["vlm_config"]["vision_config"]["depth"] = "32"
    found = wrong_kind("config.json", wrapped)
    assert found == ("vlm_config.vision_config.depth", "32", "a whole number above 0")
    lora = load_recipe("colqwen2-v1.0").lora
    adapter = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    adapter |= {"target_modules": lora.target_modules, "modules_to_save": None}
    adapter |= {"base_model_name_or_path": "vidore/colqwen2-base", "rank_pattern": {}}
    assert wrong_kind("adapter_config.json", adapter) is None


def test_null_and_what_is_left_out_have_their_default():
    assert wrong_kind("config.json", {"text_config": None}) is None
    assert wrong_kind("coltrain.json", {"base_revision": None}) is None
    assert wrong_kind("adapter_config.json", {"r": True}) == ("r", True, "a whole number above 0")


def test_a_published_template_is_of_its_kind():
    template = load_recipe("colqwen2-v1.0").model.template.model_dump()
    assert wrong_kind("coltrain.json", {"template": template}) is None
