"""Files that are damaged: said, and looked past where they are not the model's own."""

import pytest

from coltrain.errors import ModelError
from coltrain.reproduction.targets import read_target
from coltrain.reproduction.traps import examine, findings_text

ADAPTER = '{"base_model_name_or_path": "vidore/colqwen2-base", "r": 32, "lora_alpha": 32}'


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "preprocessor_config.json", "config.json", "coltrain.json"]
)
def test_a_list_where_settings_were_expected_stops_at_a_models_folder(tmp_path, name):
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    (tmp_path / name).write_text("[1, 2]")
    with pytest.raises(ModelError) as caught:
        read_target(str(tmp_path))
    assert caught.value.code == "broken-model-file"
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.received == "a JSON list"
    assert caught.value.expected == "one JSON object"


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "preprocessor_config.json", "config.json", "coltrain.json"]
)
def test_a_list_where_settings_were_expected_is_said_of_a_training(tmp_path, name):
    (tmp_path / "train.py").write_text("import colpali_engine\n")
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    (tmp_path / name).write_text("[1, 2]")
    target = read_target(str(tmp_path))
    assert f"{name}: a list" in " ".join(target.not_read)
    text = " ".join(findings_text(target, examine(target)).split())
    assert f"Checked without what could not be read: {name}: a list" in text


def test_bytes_that_are_no_text_are_no_traceback(tmp_path):
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    (tmp_path / "git_hash.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "train.yaml").write_bytes(b"\x00\x01tr_args: {}")
    (tmp_path / "run.log").write_bytes(bytes(range(256)))
    assert any("not YAML" in one for one in read_target(str(tmp_path)).not_read)


def test_an_adapters_own_file_is_read_as_its_folder(tmp_path):
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    target = read_target(str(tmp_path / "adapter_config.json"))
    assert target.kind == "model"
    assert target.facts.value("lora.r") == 32
    assert target.facts.value("model.base") == "vidore/colqwen2-base"
