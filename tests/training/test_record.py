import importlib.metadata
import json
import subprocess

import torch

from coltrain.recipe import result_hash, to_yaml
from coltrain.training import record
from coltrain.training.record import commit, device_facts, parameter_counts, probe, versions


def test_versions_name_what_computes():
    found = versions()
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["python"].startswith("3.")
    assert {"coltrain", "transformers", "peft", "datasets", "pillow", "numpy"} <= found.keys()


def test_a_package_that_is_on_the_path_only_has_no_version(monkeypatch):
    monkeypatch.setattr(record, "_PACKAGES", ("coltrain-that-was-never-installed",))
    assert versions()["coltrain-that-was-never-installed"] == "unknown"


def test_the_device_is_described():
    facts = device_facts(torch.device("cpu"))
    assert facts["type"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["name"]


def test_the_probe_holds_every_token_that_the_model_reads(tiny_built):
    found = probe(tiny_built)
    tokenizer = tiny_built.preparer.tokenizer
    text = tokenizer.decode(found["query_ids"])
    template = tiny_built.preparer.template
    expected = template.query_prefix + "What is the total revenue in 2019?" + template.query_suffix
    assert text.strip() == expected.lower()  # the tiny tokenizer writes lower case
    # 1654 x 2339 within 64 squares of 28 x 28: 6 x 9.
    assert found["visual_tokens"] == 54
    assert found["page_ids"].count(tiny_built.preparer.image_token_id) == 54
    assert json.loads(json.dumps(found)) == found


def test_parameters_are_counted_by_how_they_are_stored(tiny_built):
    counts = parameter_counts(tiny_built)
    parameters = list(tiny_built.model.parameters())
    assert counts["trainable"] + counts["frozen"] == sum(p.numel() for p in parameters)
    # r = 32 on 2 layers of 7 matrices each and on the projection, A and B.
    widths = [(128, 128), (128, 64), (128, 64), (128, 128), *[(128, 256)] * 2, (256, 128)]
    expected = 32 * (2 * sum(a + b for a, b in widths) + 128 + 128)
    assert counts["trainable"] == expected
    assert counts["by_dtype"] == {
        "trainable": {"float32": expected},
        "frozen": {"float32": counts["frozen"]},
    }
    assert counts["lora_modules"] == 15
    assert counts["lora_modules_in_vision_tower"] == 0


def test_the_recipe_in_the_record_is_the_recipe(start):
    training = start()
    facts = json.loads((training.run.path / "run.json").read_text())
    assert facts["result_hash"] == result_hash(training.recipe)
    assert facts["recipe_yaml"] == to_yaml(training.recipe)
    assert facts["recipe"]["batch"]["chunk_size"] == 4


def fake_git(answers):
    def run(arguments, **_):
        name = arguments[3]
        code, text = answers[name]
        return subprocess.CompletedProcess(arguments, code, text, "")

    return run


def test_a_commit_is_that_of_the_package_and_says_if_it_was_edited(monkeypatch):
    answers = {"rev-parse": (0, "abc123\n"), "ls-files": (0, "record.py\n"), "status": (0, "")}
    monkeypatch.setattr(record.subprocess, "run", fake_git(answers))
    assert commit() == "abc123"
    answers["status"] = (0, " M src/coltrain/losses.py\n")
    assert commit() == "abc123+changes"
    # Installed into an environment that lies within somebody else's repository.
    answers["ls-files"] = (1, "")
    assert commit() is None
    answers["rev-parse"] = (128, "")
    assert commit() is None


def test_without_git_there_is_no_commit(monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(record.subprocess, "run", no_git)
    assert commit() is None
