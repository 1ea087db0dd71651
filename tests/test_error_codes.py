"""docs/reference/errors.md has a heading for every code that coltrain raises, and for no other."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import coltrain
from coltrain import errors
from coltrain.errors import ColtrainError
from coltrain.recipe.mistakes import _OWN_CODES

ROOT = Path(coltrain.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"
CLASSES = [kind.__name__ for kind in ColtrainError.__subclasses__()]


@dataclass(frozen=True)
class Raised:
    """One place that makes an error: its class, its code, and its sentence as a pattern."""

    kind: str
    code: str
    sentence: str | None
    place: str


class Module:
    """The errors that a module makes, found without running it."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.constants = {
            target.id: node.value.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def raised(self) -> Iterator[Raised]:
        for function, call in self._calls():
            kind = _name(call.func)
            if kind in CLASSES or kind == "Mistake":
                code = _argument(call, 0, "code")
            elif kind == "PydanticCustomError":
                code = _argument(call, 0, "error_type")
            else:
                continue
            sentence = None if kind == "Mistake" else _argument(call, 1, "message")
            place = f"{self.name}, line {call.lineno}"
            for text in self._codes(code, function, place):
                if kind != "PydanticCustomError":
                    yield Raised(
                        "RecipeError" if kind == "Mistake" else kind,
                        text,
                        _pattern(sentence),
                        place,
                    )
                elif text in _OWN_CODES:  # else `invalid-recipe`, which mistakes.py says
                    yield Raised("RecipeError", text, _pattern(sentence), place)

    def _calls(self) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
        """Every call, with the innermost function around it."""

        def walk(node: ast.AST, function: ast.FunctionDef | None):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Call):
                    yield function, child
                yield from walk(child, child if isinstance(child, ast.FunctionDef) else function)

        yield from walk(self.tree, None)

    def _codes(self, node: ast.expr | None, function: ast.FunctionDef | None, place: str):
        """What a code can be: a literal, another error's, or what a helper is called with."""
        if isinstance(node, ast.Constant):
            return {node.value}
        if isinstance(node, ast.Attribute) and node.attr == "code":
            return set()  # raised again, with more said
        if isinstance(node, ast.IfExp):
            return self._codes(node.body, function, place) | self._codes(
                node.orelse, function, place
            )
        if isinstance(node, ast.Name) and node.id in self.constants:
            return {self.constants[node.id]}
        if isinstance(node, ast.Name) and function is not None:
            parameters = [argument.arg for argument in function.args.args]
            if node.id in parameters:
                return self._given(function.name, parameters.index(node.id), node.id, place)
            assigned = [
                inner.value
                for inner in ast.walk(function)
                if isinstance(inner, ast.Assign)
                and any(isinstance(to, ast.Name) and to.id == node.id for to in inner.targets)
            ]
            if assigned:
                found = set()
                for value in assigned:
                    found |= {
                        inner.value
                        for inner in ast.walk(value)
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
                    }
                return found
        raise AssertionError(f"{place}: the code cannot be read from the source")

    def _given(self, helper: str, position: int, name: str, place: str) -> set[str]:
        found = set()
        for function, call in self._calls():
            if _name(call.func) == helper:
                found |= self._codes(_argument(call, position, name), function, place)
        assert found, f"{place}: nobody calls {helper}"
        return found


def _name(node: ast.expr) -> str | None:
    return getattr(node, "id", None) or getattr(node, "attr", None)


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    if position < len(call.args):
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _pattern(sentence: ast.expr | None) -> str | None:
    """A regular expression for a sentence; None where only running the code tells it."""
    if isinstance(sentence, ast.Constant):
        return re.escape(sentence.value)
    if isinstance(sentence, ast.IfExp):
        parts = [_pattern(sentence.body), _pattern(sentence.orelse)]
        return None if None in parts else "|".join(parts)
    if isinstance(sentence, ast.JoinedStr):
        return "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) else ".+"
            for part in sentence.values
        )
    return None


@cache
def all_raised() -> tuple[Raised, ...]:
    """Every place in coltrain that makes an error."""
    return tuple(
        raised
        for file in sorted(ROOT.rglob("*.py"))
        for raised in Module(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT))).raised()
    )


@cache
def classes_of_codes() -> dict[str, list[str]]:
    """The classes of each code, in the order of the hierarchy."""
    found: dict[str, set[str]] = {}
    for raised in all_raised():
        found.setdefault(raised.code, set()).add(raised.kind)
    return {code: sorted(kinds, key=CLASSES.index) for code, kinds in found.items()}


@cache
def entries() -> dict[str, tuple[str, str]]:
    """The group and the text of each code on the page."""
    found: dict[str, tuple[str, str]] = {}
    for group in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind = group.split("\n", 1)[0].strip()
        for entry in re.split(r"^### ", group, flags=re.MULTILINE)[1:]:
            code, _, text = entry.partition("\n")
            assert code not in found, f"{code} has two headings"
            found[code] = (kind, text)
    return found


def test_the_page_has_a_heading_for_every_code_and_for_no_other():
    raised, documented = set(classes_of_codes()), set(entries())
    assert sorted(raised - documented) == [], f"missing in {PAGE.name}"
    assert sorted(documented - raised) == [], f"no longer raised, still in {PAGE.name}"


def test_a_code_stands_in_the_group_of_its_class_and_names_the_other_one():
    wrong = {}
    for code, kinds in classes_of_codes().items():
        group, text = entries().get(code, (kinds[0], " ".join(kinds)))
        if group != kinds[0] or not all(kind in text for kind in kinds[1:]):
            wrong[code] = kinds
    assert wrong == {}


def test_codes_stand_in_alphabetical_order_within_their_group():
    groups: dict[str, list[str]] = {}
    for code, (group, _) in entries().items():
        groups.setdefault(group, []).append(code)
    assert list(groups) == CLASSES
    for group, codes in groups.items():
        assert codes == sorted(codes), group


def test_every_entry_has_a_way_out_and_an_example_in_the_words_of_the_code():
    wrong = []
    for code, (group, text) in entries().items():
        example = re.search(r"^    (\w+) \[([\w-]+)\]: (.+)$", text, flags=re.MULTILINE)
        if (
            example is None
            or example[1] != group
            or example[2] != code
            or "Way out" not in " ".join(text.split())
        ):
            wrong.append(code)
            continue
        patterns = [raised.sentence for raised in all_raised() if raised.code == code]
        if None not in patterns and not any(re.fullmatch(one, example[3]) for one in patterns):
            wrong.append(f"{code}: no error says {example[3]!r}")
    assert wrong == []


def test_the_hierarchy_in_the_module_is_that_of_the_classes():
    for name in CLASSES:
        assert f"── {name}" in errors.__doc__


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise DataError("plain", "a sentence.")', {"plain"}),
        ("raise DataError(error.code, error.message)", set()),
        ('CODE = "named"\nraise DataError(CODE, "a sentence.")', {"named"}),
        ('raise PydanticCustomError("pattern", "no code of its own")', set()),
        ('raise PydanticCustomError("steps-and-epochs", "one of its own")', {"steps-and-epochs"}),
        ('Mistake(code="unknown-key", path=path)', {"unknown-key"}),
        (
            "def broken(kind):\n    return DataError(kind, words[kind])\n"
            'broken("one")\nbroken(kind="two" if late else "three")',
            {"one", "two", "three"},
        ),
        (
            'def many():\n    code = codes.pop() if alone else "several"\n'
            "    return RecipeError(code, text)",
            {"several"},
        ),
    ],
)
def test_a_code_is_found_however_it_is_said(source, codes):
    assert {raised.code for raised in Module(source, "module").raised()} == codes


def test_a_code_that_cannot_be_read_is_reported():
    with pytest.raises(AssertionError, match="module, line 1: the code cannot be read"):
        list(Module("raise DataError(make_code(), '')", "module").raised())
