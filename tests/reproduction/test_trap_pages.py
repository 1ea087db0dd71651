"""Checks and their pages are one list."""

import re
from pathlib import Path

import pytest

from coltrain.reproduction.traps import TRAPS

FOLDER = Path(__file__).parents[2] / "docs" / "reference" / "traps"


def test_every_number_has_one_check():
    assert [trap.number for trap in TRAPS] == [*range(1, 29), "F1", "F2", "F3", "F4", "F5"]
    assert len({trap.id for trap in TRAPS}) == len(TRAPS)


def test_pages_and_checks_are_the_same():
    pages = {page.stem for page in FOLDER.glob("*.md")} - {"README"}
    assert pages == {trap.id for trap in TRAPS}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.id)
def test_a_page_says_what_its_check_says(trap):
    page = (FOLDER / f"{trap.id}.md").read_text(encoding="utf-8")
    assert page.startswith(
        f"# {trap.id}\n\nTrap {trap.number}, {trap.severity}.\n\n**{trap.title}**"
    )
    assert f"<{trap.source}>" in page
    words = " ".join(page.split()).lower()
    assert f"{trap.cost}.".lower() in words
    assert f"{trap.way_out}.".lower() in words
    for heading in ("What it looks like", "How the check knows"):
        section = page.partition(f"## {heading}\n\n")[2].partition("\n## ")[0]
        assert len(section.split()) >= 5


def test_the_table_names_them_all():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| \[([\w-]+)\]", table, re.MULTILINE)
    assert rows == [(str(trap.number), trap.id) for trap in TRAPS]
