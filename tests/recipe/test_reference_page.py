"""docs/reference/recipe.md is what the script writes."""

import importlib.util
from pathlib import Path

from coltrain.recipe.keys import leaf_paths

ROOT = Path(__file__).parents[2]


def written_by_the_script() -> str:
    path = ROOT / "scripts" / "make_recipe_reference.py"
    spec = importlib.util.spec_from_file_location("make_recipe_reference", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.reference()


def test_the_page_of_keys_is_up_to_date():
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    assert page == written_by_the_script(), "python scripts/make_recipe_reference.py"


def test_every_key_has_a_row_with_its_meaning():
    page = written_by_the_script()
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.replace("\\|", "/").split("|")]
        for line in page.splitlines()
        if line.startswith("| `")
    }
    keys = [path for path in leaf_paths() if not path.startswith("model.template.")]
    assert set(keys) | {"model.template"} <= set(rows)
    assert [key for key, cells in rows.items() if not cells[4]] == []
    assert rows["batch.chunk_size"][5] == "no"
    assert rows["batch.global_size"][5] == "yes"
    assert rows["hard_negatives.per_query"][3] == "`1`"
