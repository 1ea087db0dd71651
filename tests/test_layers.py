"""A room imports from rooms above it only; `cli` and `console` put them together."""

import ast
from pathlib import Path

import pytest

import coltrain

ROOT = Path(coltrain.__file__).parent
ABOVE_ALL = {"errors", "hub", "late_interaction", "losses", "match_kernel"}
ROOMS = ["recipe", "data", "model", "evaluation", "training", "planning", "reproduction"]
COMPOSE = {"cli", "console", "__main__"}
DOORS = {"mteb": "evaluation"}  # a public name of a room's own module


def imported(source: str) -> set[str]:
    """Parts of coltrain that a module imports, anywhere in it and for types as well."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("coltrain.")}
    return found - {"__version__"}


def allowed(part: str) -> set[str]:
    if part in ABOVE_ALL:
        return ABOVE_ALL
    if part in DOORS:
        return allowed(DOORS[part])
    if part in COMPOSE:
        return ABOVE_ALL | set(ROOMS) | COMPOSE
    return ABOVE_ALL | set(ROOMS[: ROOMS.index(part) + 1])


MODULES = sorted(ROOT.rglob("*.py"))


def test_every_part_of_the_package_has_its_place():
    parts = {module.relative_to(ROOT).parts[0].removesuffix(".py") for module in MODULES}
    assert parts - {"__init__"} <= ABOVE_ALL | set(ROOMS) | COMPOSE | set(DOORS)
    assert len(MODULES) > 60


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_from_rooms_above_it_only(module):
    part = module.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return  # it names what is public
    assert imported(module.read_text(encoding="utf-8")) <= allowed(part)


def test_an_import_from_below_would_be_seen():
    source = "def late():\n    from coltrain.training.loop import Training\n"
    assert imported(source) - allowed("model") == {"training"}
    assert imported("import coltrain.evaluation.rank") - allowed("data") == {"evaluation"}
