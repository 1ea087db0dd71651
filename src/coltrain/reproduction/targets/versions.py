"""Versions of libraries, as exact numbers or as ranges, from whatever states them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from coltrain.reproduction.targets.facts import Facts

Number = tuple[int, ...]
LIBRARIES = (
    "colpali-engine",
    "transformers",
    "torch",
    "peft",
    "accelerate",
    "sentence-transformers",
    "mteb",
    "pylate",
)
# Commits of colpali-engine's tags, for git_hash.txt.
TAGS = {
    "782edcd50108d1842d154730ad3ce72476a2d17d": "0.3.1",
    "9bdcb8aa831711014199b9acd031a56cba37638e": "0.3.4",
    "59e94a92790b67bd60507608c3115a2e48f83a07": "0.3.8",
    "5b1b912cd0d0bb67ffa11b92fd298c4df70597c0": "0.3.9",
    "cae32d372ce8ce40363f50283d81760d1e301424": "0.3.10",
    "0fcbe49a225b54a5b80b2a70dda3248f7de852f2": "0.3.11",
    "97e389a5ca83becbac51eee2dc5cb9967adc8b5e": "0.3.12",
    "174055b00d4a36f672c6f915f2bdd0002e4fc9ee": "0.3.13",
    "b34c38815d433f2f3aec65fb491a53851d195474": "0.3.14",
}


@dataclass(frozen=True)
class Versions:
    """A range of versions, both ends included; None is no limit."""

    first: Number | None = None
    last: Number | None = None

    def __str__(self) -> str:
        if self.first is not None and self.first == self.last:
            return _text(self.first)
        ends = [
            f"{_text(self.first)} or later" if self.first else "",
            f"{_text(self.last)} or earlier" if self.last else "",
        ]
        return ", ".join(filter(None, ends)) or "any"

    def all_from(self, *number: int) -> bool:
        """Whether every version in the range is this one or later."""
        return self.first is not None and self.first >= number

    def all_before(self, *number: int) -> bool:
        """Whether every version in the range is earlier than this one."""
        return self.last is not None and self.last < number


def exactly(text: str) -> Versions | None:
    """The range of one version."""
    match = re.match(r"\d+(?:\.\d+)*", text.strip())
    if match is None:
        return None
    number = tuple(int(part) for part in match[0].split("."))
    return Versions(number, number)


def _text(number: Number) -> str:
    return ".".join(map(str, number))


def put_version(facts: Facts, library: str, text: str, where: str, sure: str = "stated") -> None:
    """Add an exact version, if the text is one."""
    found = exactly(str(text))
    if found is not None and library in (*LIBRARIES, "python", "coltrain"):
        facts.put(f"versions.{library}", found, where, sure)  # type: ignore[arg-type]


def read_requirements(text: str, name: str, facts: Facts) -> bool:
    """Pins in requirements.txt, `pip freeze`, pyproject.toml, a lock file, a model card
    or a conda environment."""
    found = False
    if name.endswith(".lock"):
        text = re.sub(r'name = "([\w.-]+)"\n+version = ', r"\n\1 = ", text)
    for number, line in enumerate(text.splitlines(), 1):
        if name.endswith(".md") and not _CARD_LINE.match(line):
            continue  # a card's prose speaks of other versions too
        for library, versions in _pins(line):
            facts.put(f"versions.{library}", versions, f"{name}, line {number}")
            found = True
        named = _UNPINNED.match(line) if name.startswith(_LISTS) else None
        if named:
            library = named[1].lower().replace("_", "-")
            library = _CARD_NAMES.get(library, library)
            facts.put(f"versions.{library}", Versions(), f"{name}, line {number}", "default")
            found = True
    return found


def read_installs(text: str, name: str, facts: Facts) -> bool:
    """Pins among the commands of a shell script, a Dockerfile or a notebook."""
    joined = re.sub(r"\\\s*\n", " ", text)
    lines = [line if _INSTALL.search(line) else "" for line in joined.splitlines()]
    return read_requirements("\n".join(lines), name, facts)


_INSTALL = re.compile(r"\b(pip3?|uv|conda|mamba|micromamba|poetry)\b.*\b(install|add)\b")
_CARD_LINE = re.compile(
    r"^\s*[-*|]\s*[*`]*(pytorch|torch|transformers|peft|accelerate|sentence[- ]transformers|"
    r"colpali[-_]engine)\b",
    re.IGNORECASE,
)
_CARD_NAMES = {"pytorch": "torch", "sentence transformers": "sentence-transformers"}
_NAME = "|".join([*(re.escape(one).replace("\\-", "[-_]") for one in LIBRARIES), *_CARD_NAMES])
_LISTS = ("requirements", "environment", "Pipfile")
_UNPINNED = re.compile(
    rf"^\s*(?:-\s*)?[\"']?({_NAME})(?:\[[\w,]+\])?[\"']?\s*(?:=\s*[\"']\*[\"'])?\s*(?:#.*)?$",
    re.IGNORECASE,
)
"""A library in a list of requirements, without any version."""
_PIN = re.compile(
    rf"(?<![\w/.-])({_NAME})(?:\[[\w,]+\])?[\"'`*]*\s*(==|>=|~=|<=|<|=|:|@ ?v?|\s)[\"'`* ]*[v^]?"
    r"(\d+(?:\.\d+)+)(?:[^,<\n]*,?\s*(<=|<)\s*v?(\d+(?:\.\d+)*))?",
    re.IGNORECASE,
)


def _pins(line: str) -> Iterator[tuple[str, Versions]]:
    if line.lstrip().startswith("# "):
        return
    for match in _PIN.finditer(line):
        name = match[1].lower().replace("_", "-")
        name = _CARD_NAMES.get(name, name)
        number = tuple(int(part) for part in match[3].split("."))
        sign = match[2].strip()
        if sign in (">=", "~="):
            last = tuple(int(part) for part in match[5].split(".")) if match[5] else None
            yield name, Versions(number, _just_before(last) if last else None)
        elif sign in ("<=", "<"):
            yield name, Versions(None, number if sign == "<=" else _just_before(number))
        else:
            yield name, Versions(number, number)


def _just_before(number: Number) -> Number:
    return (
        (*number[:-1], number[-1] - 1, 10**6)
        if number[-1]
        else (*number[:-2], number[-2] - 1, 10**6)
    )
