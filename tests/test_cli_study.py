"""`coltrain study`, as typed."""

import json

import pytest


def test_without_a_study_it_asks_for_one_and_lists_those_that_ship(coltrain):
    found = coltrain("study")
    assert found.code == 2
    assert "[missing-study]" in found.err
    listed = coltrain("study", "--list", "--json")
    assert "seed-study" in [one["name"] for one in json.loads(listed.out)["studies"]]
    assert "paged" not in coltrain("study", "--list").err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("study", "seed-sudy"), "unknown-study"),
        (("study", "mine.yaml"), "unknown-study"),
        (("study", "bad.yaml"), "invalid-study"),
    ],
)
def test_what_is_typed_wrongly_ends_with_one_error(coltrain, tmp_path, arguments, code):
    (tmp_path / "bad.yaml").write_text("name: bad\nbase: tiny\nfactor: {}\n")
    found = coltrain(*arguments)
    assert found.code == 2
    assert f"[{code}]" in found.err
    assert "Traceback" not in found.err
    assert found.out == ""
    assert [file.name for file in tmp_path.iterdir()] == ["bad.yaml"]
