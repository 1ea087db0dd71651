"""Traps of versions and hardware."""

import importlib.metadata
import re

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions, exactly
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown

_DECIDING = ("torch", "transformers", "peft")
# What a released engine asks for: first and last of each library (pyproject.toml of its wheel).
_PINS = {
    (0, 3, 18): {
        "torch": ((2, 0), (2, 13, 10**6)),
        "transformers": ((5, 3), (5, 10**6)),
        "peft": ((0, 18), (0, 20, 10**6)),
    },
    (0, 3, 1): {"transformers": ((4, 45), (4, 10**6)), "peft": ((0, 11), (0, 11, 10**6))},
    (0, 3, 4): {"transformers": ((4, 45), (4, 10**6)), "peft": ((0, 11), (0, 11, 10**6))},
}
# Versions from which on a library is known to compute something else than before.
MATTER: dict[str, tuple[tuple[tuple[int, ...], str], ...]] = {
    "torch": (((2,), "its kernels are others"),),
    "transformers": (
        ((4, 50), "(between 4.46 and 4.53) image processors and their settings are others"),
        ((5,), "layers have other names, and native models number patches otherwise"),
    ),
    "peft": (((0, 12), "adapters are kept in float32 and not in the type of the base"),),
}
_LAST_WITH_VOLTA = (2, 7, 1)
MAIN_OF_2026 = "9be8f19"
"""colpali-engine's main in March 2026, before what 0.3.18 mended of its marriage to transformers 5."""


def at_main_of_2026(target: Target) -> bool:
    """Whether a training names that commit."""
    return any(one.startswith(MAIN_OF_2026) for one in target.commits)


def environment_drift(target: Target) -> Outcome:
    """Trap 14: versions that are not those of the training, contradict, or are not recorded."""
    facts = target.facts
    if target.recipe is not None and target.run is None:
        return passed("a run records its versions")
    if target.run is not None:
        return _of_run(target)
    for library in (*_DECIDING, "colpali-engine", "sentence-transformers"):
        fact = facts[f"versions.{library}"]
        for other in facts.others(f"versions.{library}"):
            exact = isinstance(other.value, Versions) and other.value.first == other.value.last
            if (
                exact
                and fact.is_known
                and fact.value.first == fact.value.last
                and fact.sure != "derived"
                and other.sure != "derived"
            ):
                return failed(
                    f"{library} {fact.value} and {other.value}",
                    "one version",
                    f"{fact.where}; {other.where}",
                )
    engine = facts.value("versions.colpali-engine", Versions())
    for exact, pins in _PINS.items():
        if engine.first == engine.last == exact:
            for library, (first, last) in pins.items():
                version = facts.value(f"versions.{library}", Versions())
                if version.all_before(*first) or (
                    version.first is not None and version.first > last
                ):
                    if library == "peft" and exact != (0, 3, 18):
                        continue  # adapter-dtype-changed says it
                    return failed(
                        f"{library} {version} with colpali-engine {engine}",
                        f"{'.'.join(map(str, first))} up to {'.'.join(map(str, last[:-1]))}",
                        facts[f"versions.{library}"],
                    )
    open_ended = [
        library
        for library in _DECIDING
        if (fact := facts[f"versions.{library}"]).is_known
        and (fact.value.first != fact.value.last or fact.value.first is None)
        and re.search(r"requirements|environment|pyproject|Pipfile", fact.where)
    ]
    if len(open_ended) >= 2:
        found = ", ".join(f"{one} {facts.value(f'versions.{one}')}" for one in open_ended)
        return failed(found, "exact versions", facts[f"versions.{open_ended[0]}"])
    known = [one for one in _DECIDING if facts.knows(f"versions.{one}")]
    if not known:
        return unknown("the versions of torch, transformers and peft")
    return passed(", ".join(f"{one} {facts.value(f'versions.{one}')}" for one in known))


def _of_run(target: Target) -> Outcome:
    recorded = target.run.fact("versions", {}) if target.run else {}
    if not isinstance(recorded, dict):
        recorded = {}
    others: list[str] = []
    for library in _DECIDING:
        version = exactly(str(recorded.get(library, "")))
        if version is None:
            if target.run is not None and len(recorded) <= 3:
                continue  # a run of an early version recorded few
            return failed(
                f"{library} {recorded.get(library, 'is not recorded')}",
                "its version",
                "run.json, versions",
            )
        try:
            here = exactly(importlib.metadata.version(library))
        except importlib.metadata.PackageNotFoundError:
            continue
        if here is None or here.first is None or version.first is None:
            continue
        crossed = [
            one for one in MATTER[library] if (here.first < one[0]) != (version.first < one[0])
        ]
        if crossed:
            return failed(
                f"trained with {library} {version}; since {'.'.join(map(str, crossed[0][0]))} "
                + crossed[0][1],
                f"{here}, which is here",
                "run.json, versions",
            )
        if here.first[:2] != version.first[:2]:
            others.append(f"{library} {version}, here {here}")
    if others:
        return passed(
            f"{', '.join(others)}: not known to move a number; the last bits may differ",
            "run.json, versions",
        )
    return passed("the versions of the training are those that are here", "run.json, versions")


def single_dataset_crash(target: Target) -> Outcome:
    """Trap 22: one training set with the engine's main before 0.3.18 and transformers 5."""
    facts = target.facts
    if target.kind != "colpali-engine":
        return passed("not colpali-engine")
    engine = facts.value("versions.colpali-engine", Versions())
    transformers = facts.value("versions.transformers", Versions())
    if at_main_of_2026(target):
        return failed(f"colpali-engine at {MAIN_OF_2026}", "0.3.18", "the commit that is named")
    if facts.value("batch.num_sources", 1) > 1:
        return passed("several training sets", facts["batch.num_sources"].where)
    if engine.all_from(0, 3, 13) and engine.all_before(0, 3, 18) and transformers.all_from(5):
        return failed(
            f"one training set, colpali-engine {engine}, transformers {transformers}",
            "colpali-engine 0.3.18",
            facts["versions.colpali-engine"],
        )
    if engine.all_from(0, 3, 18) or transformers.all_before(5) or engine.all_before(0, 3, 13):
        return passed(f"colpali-engine {engine}, transformers {transformers}")
    return unknown("the versions of colpali-engine and transformers")


def removed_arguments(target: Target) -> Outcome:
    """Trap 23: arguments that transformers 5 does not take any more."""
    facts = target.facts
    argument = facts["train.removed_argument"]
    if not argument.is_known:
        return passed("none of the removed arguments")
    transformers = facts.value("versions.transformers", Versions())
    engine = facts.value("versions.colpali-engine", Versions())
    if transformers.all_from(5) or (engine.all_from(0, 3, 18) and not transformers.all_before(5)):
        why = (
            f"transformers {transformers}"
            if transformers.first
            else f"colpali-engine {engine}, which asks for transformers 5"
        )
        return failed(f"{argument.value} with {why}", "without it", argument)
    if transformers.all_before(5) or engine.all_before(0, 3, 11):
        return passed(f"{argument.value} with an earlier transformers", argument.where)
    return unknown("the version of transformers: 5 refuses overwrite_output_dir")


def card_without_wheels(target: Target) -> Outcome:
    """Trap 28: a card that the wheel, the attention kernel or the precision cannot run on."""
    facts = target.facts
    capability = facts["hardware.capability"]
    if not capability.is_known:
        if target.kind in ("model",):
            return passed("weights run on any card that torch runs on")
        if target.run is not None:
            return passed(f"ran on {facts.value('hardware.gpu', 'a CPU')}", "run.json, device")
        return unknown("the card")
    number = tuple(int(part) for part in re.findall(r"\d+", str(capability.value))[:2])
    torch = facts.value("versions.torch", Versions())
    gpu = facts.value("hardware.gpu", f"a card of capability {capability.value}")
    if number < (7, 5) and torch.first is not None and torch.first[:3] > _LAST_WITH_VOLTA:
        return failed(
            f"{gpu} (sm_{number[0]}{number[1]}) with torch {torch}",
            "torch 2.7.1, the last known wheel with sm_70",
            facts["versions.torch"],
        )
    if number < (8, 0):
        attention = facts["model.attention"]
        if attention.is_known and "flash" in str(attention.value):
            return failed(
                f"{attention.value} on {gpu}",
                "sdpa: flash attention needs capability 8.0",
                attention,
            )
        for name in ("precision.weights", "precision.compute"):
            if facts.value(name) == "bfloat16":
                return failed(
                    f"bfloat16 on {gpu}, which has no units for it",
                    "float16 with gradient scaling, or float32",
                    facts[name],
                )
    return passed(f"{gpu}, capability {capability.value}", capability.where)
