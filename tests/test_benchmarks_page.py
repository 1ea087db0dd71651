"""The page of benchmarks says what its JSON says, and where coltrain loses."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(monkeypatch):
    return loaded("page")


@pytest.fixture
def run_all(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return loaded("run_all")


def test_the_page_and_its_pictures_are_made_from_the_results_that_are_there(run_all, page):
    results = run_all.results()
    again = "python benchmarks/run_all.py --page"
    assert page.PAGE.read_text(encoding="utf-8") == page.text_of(results, run_all.SCRIPTS), again
    expected = page.pictures(results)
    for file, picture in expected.items():
        assert file.read_text(encoding="utf-8") == picture, again
    assert sorted(page.FOLDER.iterdir()) == sorted(expected)
    assert results


def test_every_result_is_of_a_script_and_names_the_machine_by_its_kind_only(run_all):
    for file in (BENCHMARKS / "results").iterdir():
        script, _, device = file.stem.rpartition("_")
        assert f"{script}.py" in run_all.SCRIPTS
        result = json.loads(file.read_text(encoding="utf-8"))
        assert {"question", "figures", "machine", "versions"} <= set(result)
        if device == "cpu":
            assert result["machine"]["device"] == "two CPU cores, no GPU"


def test_every_script_that_is_run_is_there_and_its_question_is_its_first_line(run_all):
    found = [script for script in run_all.SCRIPTS if (BENCHMARKS / script).is_file()]
    assert len(found) >= 6
    for script in found:
        first = (BENCHMARKS / script).read_text(encoding="utf-8").splitlines()[0]
        assert re.fullmatch(r'""".+\?', first), script


def test_a_question_without_a_result_is_named(page):
    text = page.text_of({"speed_cpu": result_with()}, ["speed.py", "memory.py"])
    assert "**Not measured yet** (`make bench` will): `memory.py`." in text


def result_with(**figures):
    machine = {"device": "a", "threads": 1, "rounds": 5, "torch": "2"}
    return {"question": "How fast?", "figures": figures, "machine": machine, "versions": {}}


def test_where_coltrain_loses_the_page_says_so_by_itself(page):
    lost = result_with(times_as_fast_as={"one": 2.0, "other": 0.5}, share_of_memory_of={"one": 1.5})
    text = page.text_of({"speed_cpu": lost})
    summary = text.partition("## Where coltrain loses")[2].partition("\n## ")[0]
    assert "2.00 times the time of other" in summary
    assert "1.50 times the memory of one" in summary
    assert "(#how-fast)" in summary
    assert "2.00 times as fast as one" in text
    assert "2.00 times as fast as one" not in summary
    won = page.text_of({"speed_cpu": result_with(times_as_fast_as={"one": 1.01})})
    assert "Nowhere, in what was measured." in won


def test_seconds_have_a_table_and_a_picture(page):
    times = {"best_seconds": 0.123456, "median_seconds": 0.2, "spread": 0.07}
    result = result_with(seconds={"coltrain": times, "a & b": times | {"best_seconds": 0.5}})
    text = page.text_of({"speed_cpu": result})
    assert "| coltrain | 0.123 | 0.2 | 7% |" in text
    [(file, picture)] = page.pictures({"speed_cpu": result}).items()
    assert file.name == "speed_cpu.svg"
    assert f"](benchmarks/{file.name})" in text
    assert "a &amp; b" in picture
    assert len(picture) < 4000
