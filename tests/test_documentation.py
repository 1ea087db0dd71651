"""What the README and the pages say can be typed, run and found."""

import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

import coltrain
from coltrain.cli import app, spread_pages
from coltrain.recipe import load_recipe, shipped_names
from coltrain.recipe.keys import all_paths
from coltrain.recipe.template import ALIASES

ROOT = Path(__file__).parents[1]
SOURCE = Path(coltrain.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The log tells of the past.
PAGES = [page for page in PAGES if page.name != "log.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FILE_ENDINGS = (".py", ".json", ".jsonl", ".md", ".yaml", ".html", ".parquet", ".safetensors")
OURS = ("src", "tests", "docs", "scripts", "benchmarks")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Lines of code blocks, fenced or indented, without the indentation."""
    lines, is_fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def spans(text: str) -> list[str]:
    """Code within sentences; it may be wrapped."""
    prose, is_fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif not is_fenced and not line.startswith("    "):
            prose.append(line)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", "\n".join(prose))]


def commands(text: str, *, whole: bool) -> list[str]:
    """Command lines: of code blocks, which must be whole, or of sentences, which may be cut short."""
    found = blocks(text) if whole else spans(text)
    return [line for line in found if line.startswith("coltrain ")]


def parser_of(words: list[str]):
    """The command that the words name, and the words after its name."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words, "a group of commands alone does nothing"
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check_command(line: str, *, whole: bool) -> None:
    """Raise AssertionError, or the parser's own error, if the line cannot be typed."""
    command, words = parser_of(shlex.split(line, comments=True)[1:])
    known = {name for parameter in command.params for name in (*parameter.opts, "--help")}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{line}: no option {word}"
    if whole:
        command.make_context(command.name, spread_pages(list(words)))
    named = [word for word in words if not word.startswith("-") and word.upper() != word]
    is_recipe = command.name in ("train", "show", "diff") and not line.startswith("coltrain data ")
    if is_recipe and named:
        recipes = named[: 2 if command.name == "diff" else 1]
        overrides = [word for word in named if re.match(r"[a-z_.]+=", word)]
        for recipe in recipes:
            if "/" not in recipe and not recipe.endswith(".yaml"):
                load_recipe(recipe, overrides)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_code_block_can_be_typed(name):
    for line in commands(text_of(name), whole=True):
        check_command(line, whole=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_sentence_exists_with_its_options(name):
    for line in commands(text_of(name), whole=False):
        check_command(line, whole=False)


def test_commands_are_found():
    text = text_of("README.md")
    assert len(commands(text, whole=True)) >= 4
    assert "coltrain verify --self" in commands(text, whole=False)  # wrapped there


@pytest.mark.parametrize(
    "line",
    [
        "coltrain trian tiny --out R",
        "coltrain train tiny --outt R",
        "coltrain train tiny train.step=3 --out R",
        "coltrain train tiny train.steps=three --out R",
        "coltrain recipes show colqwen2-v9",
        "coltrain recipes",
        "coltrain recipes diff tiny",
    ],
)
def test_a_command_that_cannot_be_typed_would_be_seen(line):
    with pytest.raises(Exception, match=r".") as caught:
        check_command(line, whole=True)
    assert not isinstance(caught.value, (TypeError, AttributeError, KeyError))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_that_is_named_is_one_of_a_recipe(name):
    sections = {path.partition(".")[0] for path in all_paths() if "." in path}
    keys = [
        re.split(r"[=:\s]", span)[0]
        for span in spans(text_of(name))
        if re.match(r"[a-z_]+\.[a-z_.]+([=:]|$)", span) and span.partition(".")[0] in sections
    ]
    keys = [key for key in keys if not key.endswith(FILE_ENDINGS)]
    assert [key for key in keys if key not in all_paths()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_that_is_named_ships(name):
    named = {
        span.split()[0]
        for span in spans(text_of(name))
        if span.startswith("colqwen2-") and span.split()[0] not in ALIASES
    }
    assert named <= set(shipped_names())


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere
        path, _, heading = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [
                re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings
            ]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_ours_that_is_named_is_there(name):
    for span in spans(text_of(name)):
        path = span.removeprefix("python ")
        if path.split("/")[0] in OURS and "/" in path and not re.search(r"[*…\s]", path):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_everything_in_the_readme_s_map_is_there():
    found, home = [], ROOT
    section = text_of("README.md").partition("## Where things are")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if not line.startswith("    "):
            continue
        name = re.split(r"\s{2,}", line.strip())[0]
        if not line.startswith("      "):
            home = ROOT
        for part in name.split(", "):
            assert (home / part).exists(), part
            found.append(part)
        if not line.startswith("      ") and re.fullmatch(r"src/\S+/", line.strip()):
            home = ROOT / name
    assert len(found) >= 10
    assert "recipe/" in found


@pytest.mark.parametrize("name", NAMES)
def test_every_make_target_that_is_named_is_there(name):
    targets = re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE)
    text = text_of(name)
    named = [line.split()[1] for line in blocks(text) + spans(text) if line.startswith("make ")]
    assert set(named) <= set(targets)


def python_blocks() -> list[tuple[str, str]]:
    return [
        (name, block)
        for name in NAMES
        for block in re.findall(r"^```python\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize(
    ("name", "block"), python_blocks(), ids=lambda part: part if part in NAMES else "block"
)
def test_every_python_block_runs_and_prints_a_number(name, block, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, name, "exec"), {"__name__": "documentation"})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1


def test_the_readme_has_a_python_block():
    assert "README.md" in [name for name, _ in python_blocks()]


MODULES = sorted(
    file.relative_to(SOURCE.parent).with_suffix("").as_posix().replace("/", ".")
    for file in SOURCE.rglob("*.py")
    if re.search(r"^\s+>>> ", file.read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_public_functions_have_examples():
    assert {"coltrain.late_interaction", "coltrain.losses", "coltrain.evaluation.measures"} <= set(
        MODULES
    )
