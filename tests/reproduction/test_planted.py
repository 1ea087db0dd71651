"""The doctor against planted traps: named first or second, and no alarm where there is none."""

import random
from pathlib import Path

import pytest
import torch
from planted_making import Made, Planted
from planted_trainings import PLANTED, SOUND

from coltrain.errors import ColtrainError
from coltrain.model.export.exporting import export_model
from coltrain.recipe import load_recipe
from coltrain.reproduction.targets import read_target
from coltrain.reproduction.traps import Finding, examine, findings_text
from coltrain.training.loop import Training

pytestmark = pytest.mark.reference


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A short run of the tiny base, and its exports."""
    root = tmp_path_factory.mktemp("made")
    recipe = load_recipe(
        "tiny",
        [
            "train.steps=5",
            "batch.global_size=8",
            "batch.chunk_size=4",
            "eval.data=[]",
            "eval.every=null",
        ],
    )
    for _ in Training(recipe, root / "run", torch.device("cpu")).events():
        pass
    exports = {}
    for target in ("coltrain", "colpali-engine", "transformers", "sentence-transformers"):
        export_model(str(root / "run"), target, root / target)
        exports[target] = root / target
    export_model(str(root / "run"), "colpali-engine", root / "merged", merge=True)
    return Made(root / "run", exports | {"merged": root / "merged"})


def findings_of(one: Planted, folder: Path, made: Made) -> list[Finding]:
    target = one.write(folder / "target", made)
    return examine(read_target(str(target), settings=one.settings))


def failures(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.status == "fail"]


def test_traps_are_named_first_or_second(made, tmp_path, capsys):
    rows = []
    for place, one in enumerate(PLANTED):
        found = failures(findings_of(one, tmp_path / str(place), made))
        numbers = [finding.trap.number for finding in found]
        rank = numbers.index(one.trap) + 1 if one.trap in numbers else None
        rows.append((one.name, one.trap, rank, [finding.trap.id for finding in found[:3]]))
    first = sum(rank == 1 for _, _, rank, _ in rows)
    second = sum(rank == 2 for _, _, rank, _ in rows)
    with capsys.disabled():
        print()
        for name, trap, rank, named in rows:
            print(
                f"{name:45} trap {trap!s:3} named {rank or 'no'}: {', '.join(named) or 'nothing'}"
            )
        print(f"{first} first and {second} second of {len(rows)} planted traps")
    assert len(rows) >= 60
    assert first + second >= 0.95 * len(rows)


def test_sound_trainings_raise_no_alarm(made, tmp_path, capsys):
    alarms = []
    for place, one in enumerate(SOUND):
        found = failures(findings_of(one, tmp_path / str(place), made))
        alarms += [(one.name, finding.trap.id, finding.outcome.evidence) for finding in found]
    with capsys.disabled():
        print()
        for name, trap, evidence in alarms:
            print(f"{name:45} {trap}: {evidence.found} ({evidence.where})")
        print(f"{len({name for name, *_ in alarms})} of {len(SOUND)} sound trainings with an alarm")
    assert alarms == []


def damage(file: Path, chance: random.Random) -> None:
    """Cut a file off, empty it, make it another JSON or no text, or take a line out."""
    content = file.read_bytes()
    lines = content.split(b"\n")
    kind = chance.randrange(5)
    if kind == 4:
        del lines[chance.randrange(len(lines))]
    file.write_bytes(
        [
            content[: chance.randrange(max(len(content), 1))],
            b"",
            b'[1, 2, {"a": null}]',
            chance.randbytes(300),
            b"\n".join(lines),
        ][kind]
    )


def test_a_damaged_file_is_an_error_or_said_and_never_a_traceback(made, tmp_path):
    chance, damaged = random.Random(5), 0
    for place, one in enumerate((*PLANTED, *SOUND)):
        target = one.write(tmp_path / str(place), made)
        files = [
            file
            for file in sorted((tmp_path / str(place)).rglob("*"))
            if file.is_file() and file.suffix != ".safetensors"
        ]
        if not files:
            continue  # a shipped recipe by its name
        damage(chance.choice(files), chance)
        damaged += 1
        try:
            found = read_target(str(target), settings=one.settings)
            findings_text(found, examine(found), show_all=True)
        except ColtrainError:
            pass
    assert damaged > 600


def test_every_trap_is_planted_in_some_form():
    assert len({one.trap for one in PLANTED}) >= 32
