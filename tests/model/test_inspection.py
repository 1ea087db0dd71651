"""`coltrain inspect`, and the options of every command that loads a model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from published_layouts import LAYOUTS
from safetensors.torch import load_file, save_file

from coltrain.model.folder import save_model


@pytest.fixture
def adapter(tmp_path):
    return LAYOUTS["adapter of 2024"](tmp_path / "adapter")


def test_inspect_says_all_that_decides_the_embeddings(coltrain, adapter):
    code, out, _ = coltrain("inspect", adapter, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["layout"] == "adapter"
    assert found["parameters"] == {
        "vision_tower": 274_048,
        "language_model": 296_064,
        "embeddings": 196_608,
        "projection": 16_512,
        "adapter": 17_408,
        "total": 800_640,
    }
    assert found["dtypes"] == {
        "files": {"float32": 89},
        "network": {"float32": 59},
        "adapter": {"float32": 30},
    }
    assert found["lora"]["coverage"] == "15 of 15"
    assert found["lora"]["by_part"]["vision_tower"] == [0, 10]
    assert found["template"]["name"] == "engine-0.3.12"
    assert found["template"]["query_prefix"] == "Query: "
    assert found["probe_query"]["ids"][-10:] == [0] * 10
    assert len(found["probe_query"]["tokens"]) == len(found["probe_query"]["ids"])
    assert found["probe_page"]["visual_tokens"] == found["probe_page"]["ids"].count(5) == 16
    assert found["visual_tokens"] == {
        "Letter, 850 x 1100": 744,
        "A4 at 200 dpi, 1654 x 2339": 736,
    }
    assert found["positions"]["mrope"] is True
    assert found["audit"]["probe"]["adapter"] > 0.001
    assert set(found["hashes"]) == {"weights", "projection", "adapter"}


def test_inspect_prints_the_same_as_a_table(coltrain, adapter):
    code, out, _ = coltrain("inspect", adapter, "--max-visual-tokens", "1024")
    assert code == 0
    lines = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    for line in (
        "layout adapter",
        "names of tensors released, adapter: released",
        "vision tower 274,048 parameters",
        "type, adapter float32 (30 tensors)",
        "base, checked it has the name that the adapter says",
        "LoRA r=4, alpha=8, dropout=0.1",
        "LoRA coverage 15 of 15",
        "LoRA, vision tower 0 of 10",
        "visual tokens at most 1024",
        "visual tokens, Letter, 850 x 1100 1008",
        "visual tokens, A4 at 200 dpi, 1654 x 2339 988",
        "M-RoPE on, [4, 6, 6]",
        "tensors read 89: model.safetensors, adapter_model.safetensors",
        "lora_B that are zero none",
    ):
        assert line in lines, line
    assert "audit: passed" in out


def test_a_run_of_ours_is_probed_when_it_is_inspected(coltrain, filled_built, tmp_path):
    save_model(filled_built, tmp_path / "run" / "model")
    code, out, _ = coltrain("inspect", tmp_path / "run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["layout"] == "coltrain"
    assert found["base"]["check"] == "hash"
    assert found["audit"]["hashes_recorded"] is True
    assert found["audit"]["probe"]["adapter"] > 0.001
    assert found["max_visual_tokens"] == 64


def test_a_base_is_given_on_the_command_line(coltrain, adapter, tmp_path):
    base = tmp_path / "adapter-base"
    base.rename(tmp_path / "moved")
    code, _, err = coltrain("inspect", adapter)
    assert code == 2
    assert err == (
        "ModelError [model-not-found]: there is no such model.\n"
        f"  where     {adapter / 'adapter_config.json'} names it as the base\n"
        f"  received  {base}\n"
        "  expected  `tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base\n"
        "  try       --base with the base's folder or hub name\n"
    )
    code, out, _ = coltrain("inspect", adapter, "--base", tmp_path / "moved", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["base"]["name"] == str(tmp_path / "moved")
    assert found["base"]["named"] == str(base)
    assert found["base"]["check"] == "not known"


def commands(model, tmp_path):
    page = tmp_path / "page.png"
    Image.fromarray(np.zeros((56, 56, 3), np.uint8)).save(page)
    return {
        "inspect": ("inspect", model),
        "eval": ("eval", model, "--on", "tiny"),
        "encode": ("encode", model, "--pages", page, "--out", tmp_path / "out.npz"),
        "mine": ("mine", "tiny:train", "--with", model, "--out", tmp_path / "mined"),
    }


@pytest.mark.parametrize("command", ["inspect", "eval", "encode", "mine"])
def test_every_command_that_loads_a_model_can_do_without_mapping(
    coltrain, adapter, tmp_path, command
):
    code, out, err = coltrain(*commands(adapter, tmp_path)[command], "--no-key-mapping")
    assert (code, out) == (2, "")
    assert err.startswith("ModelError [unmapped-key]: a tensor's name is not ColQwen2's own")
    assert "base_model.model.model.layers.0" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["inspect", "eval", "encode", "mine"])
def test_every_command_names_the_tensor_of_a_damaged_model(coltrain, adapter, tmp_path, command):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    tensors[key][0, 0] = float("nan")
    save_file(tensors, file)
    code, out, err = coltrain(*commands(adapter, tmp_path)[command])
    assert (code, out) == (2, "")
    assert err.splitlines()[:2] == [
        "ModelError [weight-not-finite]: a tensor holds values that are not finite.",
        f"  where     {file}, {key}",
    ]
    assert not (tmp_path / "out.npz").exists()
    assert not (tmp_path / "mined").exists()


def test_a_pickle_is_read_by_a_named_flag_only(coltrain, tmp_path):
    folder = LAYOUTS["colqwen2"](tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    code, _, err = coltrain("inspect", folder)
    assert code == 2
    assert err.startswith("ModelError [pickled-weights]")
    assert "--allow-pickle" in err
    code, out, _ = coltrain("inspect", folder, "--allow-pickle", "--json")
    assert code == 0
    assert json.loads(out)["audit"]["files"] == ["pytorch_model.bin"]
