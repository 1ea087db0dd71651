"""From a name to a folder, with a hub on loopback and without one."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch

from coltrain.errors import ModelError
from coltrain.model.adapter import save_adapter
from coltrain.model.locate import locate_model, tiny_folder
from coltrain.model.retriever import Retriever, load

LOCATE = """
import json, sys
from coltrain.errors import ColtrainError
from coltrain.model.locate import locate_model
answers = []
for name, revision in json.loads(sys.argv[1]):
    try:
        answers.append({"folder": str(locate_model(name, revision))})
    except ColtrainError as error:
        answers.append({"code": error.code, "message": str(error)})
print(json.dumps(answers))
"""
LOAD = """
import json, sys
from coltrain.model.retriever import load
[name] = json.loads(sys.argv[1])
retriever = load(name)
[query] = retriever.encode_queries(["iron and glass"])
print(json.dumps({"base": retriever.built.base, "first": query[0, :4].tolist()}))
"""


def test_the_shipped_base_has_a_name_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model("tiny") == tiny_folder()


def test_a_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "some" / "model"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate_model(str(folder)) == folder
    assert locate_model("some/model").resolve() == folder  # before any hub is asked
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_model("~/some/model") == folder


@pytest.mark.parametrize(
    "name", ["", "./nothing", "/no/where", "~/nothing", "nothing", "a/b/c", "some/model/"]
)
def test_what_can_only_be_a_folder_and_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        locate_model(name)
    assert str(caught.value) == (
        "ModelError [model-not-found]: there is no such model.\n"
        f"  received  {name or 'an empty name'}\n"
        "  expected  `tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base"
    )


@pytest.mark.parametrize("name", ["some/mo del", "some/model..x", "some/-model"])
def test_what_cannot_be_a_hub_name(name):
    with pytest.raises(ModelError) as caught:
        locate_model(name)
    assert str(caught.value) == (
        "ModelError [model-not-found]: this is neither a folder nor a possible hub name.\n"
        f"  received  {name}\n"
        "  expected  `tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base"
    )


@pytest.mark.parametrize(("revision", "at"), [(None, ""), ("v1", "@v1")])
def test_a_hub_name_without_a_hub_says_what_is_missing_and_how_to_get_it(
    tmp_path, monkeypatch, revision, at
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        locate_model("some/model", revision)
    option = " --revision v1" if revision else ""
    assert str(caught.value) == (
        "ModelError [hub-offline]: the hub cannot be reached, and the model is not (wholly) in the "
        "cache.\n"
        f"  where     some/model{at}\n"
        "  received  HF_HUB_OFFLINE is set in the environment\n"
        "  expected  a connection, an earlier download, or a folder\n"
        f"  try       where there is a connection: hf download some/model{option}\n"
        "            then copy the hub's cache here, or use --local-dir and give that folder in "
        "place of the name"
    )


@pytest.fixture
def in_a_new_process(tmp_path):
    """Runs a script that knows a hub by its address, with arguments; its answer."""

    def run(script, address, *arguments):
        answer = subprocess.run(
            [sys.executable, "-c", script, json.dumps(arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",  # the suite itself runs offline
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "no_proxy": "127.0.0.1",
            },
        )
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    return run


def add_to_hub(models, name, folder, revision="main"):
    target = models / name / revision
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, target)


def unreachable():
    """An address at which nobody answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.mark.slow
def test_models_are_found_on_the_hub_and_then_in_the_cache(
    model_hub, in_a_new_process, write_base, tiny_retriever
):
    models, address, asked = model_hub
    released = write_base("released")
    (released / "pytorch_model.bin").write_bytes(b"pickle")
    add_to_hub(models, "some/base", released)
    add_to_hub(models, "some/base", write_base("half", dtype=torch.bfloat16), "half")
    wanted = [["some/base", None], ["some/base", "half"], ["some/base", "v9"], ["some/no", None]]
    whole, half, no_revision, nothing = in_a_new_process(LOCATE, address, *wanted)
    hashes = [load(answer["folder"]).built.weights_hash for answer in (whole, half)]
    assert hashes[0] == tiny_retriever.built.weights_hash != hashes[1]
    assert nothing["message"] == (
        "ModelError [model-not-found]: there is neither a folder nor a model of the hub with this "
        "name that you may see.\n"
        "  received  some/no\n"
        "  expected  `tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base\n"
        "  try       check the spelling; a private one needs a token: `hf auth login`, or HF_TOKEN "
        "in the environment"
    )
    assert no_revision["message"] == (
        "ModelError [unknown-revision]: the model has no such revision.\n"
        "  where     some/base\n"
        "  received  v9\n"
        "  expected  a commit, tag or branch of the model"
    )
    assert any("model.safetensors" in line for line in asked)
    assert not any("pytorch_model.bin" in line for line in asked)  # pickles are left alone
    # The same again without a connection: what was seen is in the cache, the rest is not.
    again = in_a_new_process(LOCATE, unreachable(), *wanted)
    assert again[:2] == [whole, half]
    assert [answer["code"] for answer in again[2:]] == ["hub-offline"] * 2


@pytest.mark.slow
@pytest.mark.reference
def test_an_adapter_of_the_hub_loads_over_the_base_that_it_names(
    model_hub, in_a_new_process, write_base, filled_built, tmp_path
):
    models, address, _ = model_hub
    add_to_hub(models, "some/base", write_base())
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(filled_built.model, filled_built.lora, "some/base", adapter)
    add_to_hub(models, "some/adapter", adapter)
    answer = in_a_new_process(LOAD, address, "some/adapter")
    [query] = Retriever(filled_built).encode_queries(["iron and glass"])
    assert answer == {"base": "some/base", "first": pytest.approx(query[0, :4].tolist(), abs=1e-6)}
