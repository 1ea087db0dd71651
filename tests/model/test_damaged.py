"""Damaged and mismatched checkpoints, in several layouts: each refused, with the name of what."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from published_layouts import LAYOUTS, tiny_adapter, tiny_tensors, write_adapter, write_network
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError
from coltrain.model.folder import save_model
from coltrain.model.retriever import load
from coltrain.model.weights import tensor_hashes, write_hashes

# A matrix that is not square, in every layout.
MATRIX = "layers.1.mlp.down_proj"
WEIGHT, DOWN, UP = f"{MATRIX}.weight", f"{MATRIX}.lora_A.weight", f"{MATRIX}.lora_B.weight"
SQUARE_DOWN = "custom_text_proj.lora_A.weight"


def holder(folder: Path, ending: str) -> tuple[Path, str]:
    """The file and full key of the tensor whose key ends so."""
    for file in sorted(folder.rglob("*.safetensors")):
        for key in load_file(file):
            if key.endswith(ending):
                return file, key
    raise AssertionError(f"no tensor {ending} in {folder}")


def edit(ending: str, change: Callable[[torch.Tensor], torch.Tensor | None]):
    """A damage: one tensor changed, or dropped where the change gives None."""

    def damage(folder: Path) -> str:
        file, key = holder(folder, ending)
        tensors = load_file(file)
        changed = change(tensors.pop(key))
        if changed is not None:
            tensors[key] = changed.contiguous()
        save_file(tensors, file, metadata={"format": "pt"})
        return key

    return damage


def rename(ending: str, new: Callable[[str], str]):
    def damage(folder: Path) -> str:
        file, key = holder(folder, ending)
        tensors = load_file(file)
        tensors[new(key)] = tensors.pop(key)
        save_file(tensors, file, metadata={"format": "pt"})
        return new(key)

    return damage


def set_value(value: float):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[7] = value
        return tensor

    return change


def all_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def drop_file(place: int):
    def damage(folder: Path) -> str:
        file = all_files(folder)[place]
        file.unlink()
        return file.name

    return damage


def drop_index(folder: Path) -> str:
    (folder / "model.safetensors.index.json").unlink()
    return "model.safetensors.index.json"


def half_the_shards_without_index(folder: Path) -> str:
    drop_index(folder)
    return drop_file(0)(folder)


def cut(size: int):
    def damage(folder: Path) -> str:
        file = all_files(folder)[0]
        file.write_bytes(file.read_bytes()[:size])
        return file.name

    return damage


def pickled(folder: Path) -> str:
    for file in all_files(folder):
        stem = file.stem.replace("model", "pytorch_model", file.stem.startswith("model"))
        torch.save(load_file(file), file.with_name(f"{stem}.bin"))
        file.unlink()
    return "pytorch_model.bin" if (folder / "config.json").exists() else "adapter_model.bin"


def config(**changed):
    def damage(folder: Path) -> str:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))
        return "config.json"

    return damage


def adapter_config(**changed):
    def damage(folder: Path) -> str:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))
        return "adapter_config.json"

    return damage


def every(ending: str, change: Callable[[torch.Tensor], torch.Tensor]):
    def damage(folder: Path) -> str:
        named = None
        for file in all_files(folder):
            tensors = load_file(file)
            for key in tensors:
                if key.endswith(ending):
                    named, tensors[key] = named or key, change(tensors[key])
            save_file(tensors, file, metadata={"format": "pt"})
        return named

    return damage


def unknown_era(folder: Path) -> str:
    [file] = all_files(folder)
    tensors = {
        key.replace("base_model.model.", "base_model.model.backbone."): tensor
        for key, tensor in load_file(file).items()
    }
    save_file(tensors, file)
    return next(iter(load_file(file)))


def no_tensors(folder: Path) -> str:
    save_file({}, folder / "adapter_model.safetensors")
    return "adapter_model.safetensors"


def of_another_size(folder: Path) -> str:
    adapter = {
        key: torch.randn(4, 192) if "lora_A" in key else torch.randn(len(tensor), 4)
        for key, tensor in tiny_adapter(tiny_tensors()).items()
    }
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    write_adapter(folder, "released", adapter, base)
    return "(4, 192)"


def other_rank(folder: Path) -> str:
    adapter_config(r=8)(folder)
    return "(8, 128)"


def other_modules(folder: Path) -> str:
    adapter_config(target_modules=["q_proj", "visual.merger.mlp.0"])(folder)
    return "visual.merger.mlp.0.lora_A.weight"


def no_base(folder: Path) -> str:
    shutil.rmtree(f"{folder}-base")
    return f"{folder}-base"


def other_tensors(folder: Path) -> str:
    """Half of the model under another library's names."""
    [file] = all_files(folder)
    found = {
        key.replace("language_model.layers.1.", "model.layers.1."): tensor
        for key, tensor in load_file(file).items()
    }
    save_file(found, file)
    return "model.layers.1."


def integers(folder: Path) -> str:
    return edit(WEIGHT, lambda tensor: (100 * tensor).to(torch.int8))(folder)


def dense_activation(folder: Path) -> str:
    file = folder / "1_Dense" / "config.json"
    content = json.loads(file.read_text()) | {
        "activation_function": "torch.nn.modules.activation.Tanh"
    }
    file.write_text(json.dumps(content))
    return "activation.Tanh"


@dataclass(frozen=True)
class Damage:
    """A damage, which returns what the error has to name, and the error's code by layout."""

    name: str
    do: Callable[[Path], str]
    code: str
    layouts: tuple[str, ...]


OWN, SHARDED, NATIVE = "colqwen2", "released, sharded, with lm_head", "native-4.53"
FLAT, ADAPTER, TODAY = "sentence-transformers, flat", "adapter of 2024", "adapter of today"
NETWORKS = (OWN, SHARDED, NATIVE, FLAT)
PROJECTIONS = {
    OWN: "custom_text_proj.weight",
    NATIVE: "embedding_proj_layer.weight",
    FLAT: "linear.weight",
}

DAMAGES = [
    Damage("a tensor dropped", edit(WEIGHT, lambda _: None), "missing-weight", NETWORKS),
    Damage(
        "a norm dropped",
        edit("layers.1.input_layernorm.weight", lambda _: None),
        "missing-weight",
        NETWORKS,
    ),
    Damage(
        "a tensor renamed",
        rename(WEIGHT, lambda key: key.replace("down_proj", "down")),
        "unexpected-weight",
        NETWORKS,
    ),
    Damage(
        "a tensor of no known name",
        rename(WEIGHT, lambda key: f"tower.{key}"),
        "unknown-weight",
        NETWORKS,
    ),
    Damage("a tensor transposed", edit(WEIGHT, lambda t: t.T), "weight-shape", NETWORKS),
    Damage("a tensor zeroed", edit(WEIGHT, torch.zeros_like), "weight-constant", NETWORKS),
    Damage("a constant tensor", edit(WEIGHT, torch.ones_like), "weight-constant", NETWORKS),
    Damage(
        "the vision merger zeroed",
        edit("merger.mlp.2.weight", torch.zeros_like),
        "weight-constant",
        NETWORKS,
    ),
    Damage("NaN in a matrix", edit(WEIGHT, set_value(float("nan"))), "weight-not-finite", NETWORKS),
    Damage(
        "NaN in a norm", edit("norm.weight", set_value(float("nan"))), "weight-not-finite", NETWORKS
    ),
    Damage("Inf", edit(WEIGHT, set_value(float("-inf"))), "weight-not-finite", NETWORKS),
    Damage("of another size", edit(WEIGHT, lambda t: t[:, :-8]), "weight-shape", NETWORKS),
    Damage("integers", integers, "weight-type", NETWORKS),
    *(
        Damage("projection missing", edit(key, lambda _: None), "missing-weight", (layout,))
        for layout, key in PROJECTIONS.items()
    ),
    Damage("a shard missing", drop_file(0), "missing-model-file", (SHARDED, NATIVE)),
    Damage("the index missing", drop_index, "missing-model-file", (SHARDED, NATIVE)),
    Damage(
        "half the shards and no index",
        half_the_shards_without_index,
        "missing-model-file",
        (SHARDED, NATIVE),
    ),
    Damage("weights missing", drop_file(-1), "missing-model-file", (OWN, FLAT, ADAPTER)),
    Damage("a header cut off", cut(100), "broken-model-file", (*NETWORKS, ADAPTER)),
    Damage("data cut off", cut(5000), "broken-model-file", (*NETWORKS, ADAPTER)),
    Damage("an empty file", cut(0), "broken-model-file", (OWN, ADAPTER)),
    Damage("a pickle", pickled, "pickled-weights", (OWN, ADAPTER)),
    Damage(
        "an unknown architecture", config(model_type="llava"), "unknown-architecture", (OWN, FLAT)
    ),
    Damage(
        "an unknown architecture inside",
        config(vlm_config={"model_type": "qwen2_5_vl"}),
        "unknown-architecture",
        (NATIVE,),
    ),
    Damage("no configuration inside", config(vlm_config=None), "broken-model-file", (NATIVE,)),
    Damage("mixed layouts", other_tensors, "mixed-layouts", (OWN,)),
    Damage("modules that do more", dense_activation, "unsupported-module", (FLAT,)),
    Damage("adapter keys of an unknown era", unknown_era, "unknown-weight", (ADAPTER, TODAY)),
    Damage(
        "adapter keys of two eras",
        rename(DOWN, lambda key: key.replace("model.layers", "language_model.layers")),
        "mixed-layouts",
        (ADAPTER,),
    ),
    Damage(
        "all lora_B zero",
        every("lora_B.weight", torch.zeros_like),
        "adapter-untrained",
        (ADAPTER, TODAY),
    ),
    Damage("one lora_B zero", edit(UP, torch.zeros_like), "adapter-untrained", (ADAPTER, TODAY)),
    Damage(
        "one lora_B missing", edit(UP, lambda _: None), "adapter-does-not-fit", (ADAPTER, TODAY)
    ),
    Damage("a lora_A missing", edit(DOWN, lambda _: None), "adapter-does-not-fit", (ADAPTER,)),
    Damage("a lora_A zero", edit(DOWN, torch.zeros_like), "weight-constant", (ADAPTER,)),
    Damage("NaN in lora_A", edit(DOWN, set_value(float("nan"))), "weight-not-finite", (ADAPTER,)),
    Damage("NaN in lora_B", edit(UP, set_value(float("nan"))), "weight-not-finite", (ADAPTER,)),
    Damage("a lora_A transposed", edit(DOWN, lambda t: t.T), "adapter-shape", (ADAPTER,)),
    Damage("an adapter without tensors", no_tensors, "adapter-without-modules", (ADAPTER,)),
    Damage(
        "an adapter that touches no module",
        adapter_config(target_modules=["query_key_value"]),
        "no-lora-target",
        (ADAPTER,),
    ),
    Damage(
        "an adapter that touches other modules",
        other_modules,
        "adapter-does-not-fit",
        (ADAPTER,),
    ),
    Damage("an adapter of another size", of_another_size, "adapter-shape", (ADAPTER,)),
    Damage("an adapter of another rank", other_rank, "adapter-shape", (ADAPTER,)),
    Damage("an adapter without its base", no_base, "model-not-found", (ADAPTER,)),
    Damage(
        "an adapter with DoRA", adapter_config(use_dora=True), "unsupported-adapter", (ADAPTER,)
    ),
]
CASES = [(damage, layout) for damage in DAMAGES for layout in damage.layouts]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undamaged folders, by layout."""
    root = tmp_path_factory.mktemp("whole")
    layouts = (*NETWORKS, ADAPTER, TODAY)
    return {name: LAYOUTS[name](root / f"layout-{place}") for place, name in enumerate(layouts)}


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of a layout's folder, and of its base beside it."""

    def copy(layout: str) -> Path:
        folder = shutil.copytree(whole[layout], tmp_path / "model")
        base = Path(f"{whole[layout]}-base")
        if base.is_dir():
            shutil.copytree(base, tmp_path / "model-base")
            adapter_config(base_model_name_or_path=str(tmp_path / "model-base"))(folder)
        return folder

    return copy


def test_there_are_more_than_twenty_damages_and_the_whole_folders_load(whole):
    assert len({damage.name for damage in DAMAGES}) >= 40
    assert len(CASES) >= 80
    for folder in whole.values():
        load(folder)


@pytest.mark.parametrize(
    ("damage", "layout"), CASES, ids=[f"{damage.name}: {layout}" for damage, layout in CASES]
)
def test_a_damaged_checkpoint_is_refused_by_name(copied, damage, layout):
    folder = copied(layout)
    named = damage.do(folder)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == damage.code
    assert caught.value.exit_code == 2
    text = str(caught.value)
    if caught.value.code in ("missing-weight", "adapter-does-not-fit"):
        # A missing tensor is named as the model calls it: its file has no name for it.
        named = named.replace("embedding_proj_layer", "custom_text_proj")
        named = ".".join(named.rsplit(".", 5)[-5:])
    assert named in text, text


def test_pickled_weights_load_when_the_user_insists(copied, tmp_path, uneven_queries):
    expected = load(copied(OWN)).encode_queries(uneven_queries)
    pickled(tmp_path / "model")
    retriever = load(tmp_path / "model", allow_pickle=True)
    assert retriever.built.report.files == ["pytorch_model.bin"]
    for one, other in zip(retriever.encode_queries(uneven_queries), expected, strict=True):
        assert torch.equal(one, other)


def test_a_pickled_adapter_loads_when_the_user_insists(copied, tmp_path):
    pickled(copied(ADAPTER))
    assert load(tmp_path / "model", allow_pickle=True).built.report.files[-1] == "adapter_model.bin"


class Code:
    """What a pickle runs as it is read."""

    def __reduce__(self):
        return print, ("this ran",)


def test_a_pickle_that_runs_code_is_refused_all_the_same(copied, capsys):
    folder = copied(OWN)
    (folder / "model.safetensors").unlink()
    torch.save({"language_model.norm.weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load(folder, allow_pickle=True)
    assert caught.value.code == "broken-model-file"
    assert "this ran" not in capsys.readouterr().out


def test_values_too_large_for_the_type_are_refused(copied):
    folder = copied(OWN)
    key = edit(WEIGHT, set_value(1e5))(folder)
    load(folder)
    load(folder, dtype=torch.bfloat16)
    with pytest.raises(ModelError) as caught:
        load(folder, dtype=torch.float16)
    assert caught.value.code == "weight-not-finite"
    assert caught.value.where == f"{folder / 'model.safetensors'}, {key}"
    assert caught.value.received == "values up to 100000"


def test_biases_and_norms_of_one_value_are_listed_and_not_refused(copied):
    folder = copied(OWN)
    edit("layers.0.input_layernorm.weight", torch.ones_like)(folder)
    edit("layers.0.self_attn.q_proj.bias", torch.zeros_like)(folder)
    assert sorted(load(folder).built.report.constant) == [
        "language_model.layers.0.input_layernorm.weight",
        "language_model.layers.0.self_attn.q_proj.bias",
    ]


def test_files_that_were_not_read_are_listed(copied):
    folder = copied(OWN)
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    (folder / "training_args.bin").write_bytes(b"")
    assert load(folder).built.report.unread == ["model-00001-of-00002.safetensors"]


def test_a_network_that_does_not_see_its_pages_is_refused(copied):
    folder = copied(OWN)
    # No matrix is constant, and yet nothing of the image comes through.
    edit("visual.merger.ln_q.weight", lambda t: torch.zeros_like(t))(folder)
    edit("visual.merger.ln_q.bias", lambda t: torch.zeros_like(t))(folder)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == "embeddings-all-alike"
    assert caught.value.received.startswith("two different pages differ by 0")


def test_an_adapter_that_changes_nothing_is_refused(copied):
    folder = copied(ADAPTER)
    every("lora_B.weight", lambda tensor: 1e-30 * tensor)(folder)
    with pytest.raises(ModelError, match=r"\[adapter-without-effect\]"):
        load(folder)


@pytest.fixture
def run(filled_built, tmp_path):
    """A folder of coltrain's own."""
    save_model(filled_built, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "change", [lambda t: t.T, torch.zeros_like, set_value(float("nan")), set_value(1.0)]
)
def test_an_own_folder_finds_any_change_by_its_hash(run, change):
    key = edit(UP, lambda t: change(t).reshape(t.shape))(run)
    with pytest.raises(ModelError) as caught:
        load(run)
    assert caught.value.code == "weight-changed"
    assert caught.value.where == f"{run / 'adapter_model.safetensors'}, {key}"


def test_a_fresh_adapter_of_our_own_is_listed(tiny_built, tmp_path):
    save_model(tiny_built, tmp_path / "fresh")
    report = load(tmp_path / "fresh").built.report
    assert len(report.untrained) == 15
    assert report.hashes_recorded
    (tmp_path / "fresh" / "hashes.json").unlink()
    with pytest.raises(ModelError, match=r"\[adapter-untrained\]"):
        load(tmp_path / "fresh")


def test_a_merged_folder_of_ours_finds_a_square_matrix_transposed(filled_built, tmp_path):
    tensors = tiny_tensors()
    folder = write_network(tmp_path / "merged", "colqwen2", tensors)
    card = {
        "format": 1,
        "template": filled_built.preparer.template.model_dump(),
        "max_visual_tokens": 48,
    }
    (folder / "coltrain.json").write_text(json.dumps(card))
    write_hashes(folder, {"model": tensor_hashes(tensors)})
    built = load(folder).built
    assert (built.report.layout, built.report.hashes_recorded) == ("coltrain-merged", True)
    assert built.preparer.max_visual_tokens == 48
    key = edit("self_attn.o_proj.weight", lambda t: t.T)(folder)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == "weight-changed"
    assert caught.value.where.endswith(f"model.safetensors, {key}")
    (folder / "hashes.json").unlink()
    assert not load(folder).built.report.hashes_recorded  # nothing else can see it
