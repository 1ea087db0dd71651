"""From what a user names to a `Target`."""

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coltrain.errors import ColtrainError, RecipeError, UsageError
from coltrain.recipe import Recipe, load_recipe, recipe_from_mapping, shipped_names
from coltrain.reproduction.targets.batch import put_batch
from coltrain.reproduction.targets.calls import Call, nested, unique
from coltrain.reproduction.targets.card import read_card, read_sentence_card
from coltrain.reproduction.targets.case import CASE, put_case, read_case
from coltrain.reproduction.targets.deepspeed import put_deepspeed
from coltrain.reproduction.targets.engine import is_engine, loaded_model, put_engine
from coltrain.reproduction.targets.facts import NAMES, UNKNOWN
from coltrain.reproduction.targets.files import (
    CONFIGS,
    PINS,
    deepspeed_of,
    in_subfolders,
    is_launch,
    printed_by,
    states_of,
)
from coltrain.reproduction.targets.hand_work import put_hand_work
from coltrain.reproduction.targets.huggingface import find, lora_call, training_arguments
from coltrain.reproduction.targets.launch import (
    Launch,
    read_accelerate,
    read_containers,
    read_gpu,
    read_launch,
)
from coltrain.reproduction.targets.launch_calls import put_launch_calls
from coltrain.reproduction.targets.model_folder import (
    MARKS,
    is_model,
    put_model,
    read_json,
    refuse_broken,
)
from coltrain.reproduction.targets.printed_log import is_printed, read_printed
from coltrain.reproduction.targets.python.values import POSITIONAL
from coltrain.reproduction.targets.recipe import put_recipe
from coltrain.reproduction.targets.run import put_run
from coltrain.reproduction.targets.script import read_script
from coltrain.reproduction.targets.sentence import is_sentence, put_sentence
from coltrain.reproduction.targets.source import PYTHON, read_source
from coltrain.reproduction.targets.target import Target
from coltrain.reproduction.targets.trainer_state import put_ranks_from_steps, put_trainer_state
from coltrain.reproduction.targets.versions import (
    TAGS,
    put_version,
    read_installs,
    read_requirements,
)
from coltrain.reproduction.targets.yaml_config import load_yaml


def read_target(
    name: str,
    overrides: Sequence[str] = (),
    *,
    settings: Sequence[str] = (),
    launch: str | None = None,
) -> Target:
    """Read what a training was.

    Args:
        name: A recipe by name or file, a run, a model's folder, or a foreign configuration, script
            or folder of one.
        overrides: `key=value` for a recipe.
        settings: `fact=value`, what the user knows and no file says.
        launch: The command that started it, where no file has it.

    Raises:
        UsageError: There is no such target, or nothing that is known as a training in it.
        ColtrainError: A recipe is one, and is wrong.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if name in shipped_names() or "/" not in name:
            target = _recipe(name, overrides)
        else:
            raise UsageError(
                "no-such-target",
                "there is nothing of this name to look at.",
                received=name,
                expected="a recipe, a run, a model's folder, or a training's configuration",
            )
    elif path.is_dir():
        target = _folder(path, name, launch)
    else:
        target = _file(path, name, overrides, launch)
    _tell(target, settings)
    if path.is_dir():
        target.case = read_case(path)
        put_case(target.case, target.facts)
        if target.case:
            target.read.append(f"{CASE}: {len(target.case.get('facts', {}))} facts")
    if target.recipe is None:
        put_batch(target.facts, target.kind)
    return target


def _recipe(name: str, overrides: Sequence[str]) -> Target:
    """A recipe by name or file; one that training refuses for its template's strings is looked at too."""
    try:
        return read_recipe(load_recipe(name, list(overrides)), name)
    except RecipeError as error:
        if error.code != "template-drift":
            raise
        named = "model.template.name=strings of its own"
        target = read_recipe(load_recipe(name, [*overrides, named]), name)
        target.not_read.append(f"{name}: training refuses it ({error.message} {error.received})")
        return target


def read_recipe(recipe: Recipe, name: str) -> Target:
    """The facts of a recipe."""
    target = Target("recipe", name, recipe=recipe)
    put_recipe(recipe, target.facts, name)
    target.read.append(f"{name}: a recipe")
    return target


def _file(path: Path, name: str, overrides: Sequence[str], command: str | None) -> Target:
    if path.name in MARKS and not _is_recipe(path):
        return _folder(path.parent, name, command)  # what the file means lies beside it
    if path.suffix in (".yaml", ".yml", ".json") and not _looks_foreign(path):
        return _recipe(name, overrides)
    beside = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path]
    settings = deepspeed_of(path.parent) if path.suffix in PYTHON else []
    helpers = [
        file
        for file in beside
        if is_launch(file)
        or file.name.startswith(PINS)
        or file.name in ("git_hash.txt", "accelerate_config.yaml", "default_config.yaml")
    ]
    return _foreign([path], helpers + settings, name, command)


def _is_recipe(path: Path) -> bool:
    content = load_yaml(path, [])
    sections = set(content) if isinstance(content, dict) else set()
    return len(sections & set(Recipe.model_fields)) >= 4


def _looks_foreign(path: Path) -> bool:
    if _is_recipe(path):
        return False  # whatever its `sources` speak of
    text = path.read_text(encoding="utf-8", errors="replace")
    return bool(
        re.search(r"colpali_engine|!ext|\(\):|TrainingArguments|per_device_train_batch_size", text)
        or ("log_history" in text and path.suffix == ".json")
        or "lora_alpha" in text
    )


def _folder(path: Path, name: str, command: str | None) -> Target:
    if (path / "run.json").is_file():
        return _run(path, name)
    files = [file for file in sorted(path.iterdir()) if file.is_file()]
    scripts = [file for file in files if file.suffix in PYTHON]
    configs = [
        file
        for file in files
        if (file.suffix in (".yaml", ".yml") and file.name != CASE)
        or file.name in ("training_args.json", "args.json")
    ]
    known = [*scripts, *configs]
    helpers = [file for file in files if is_launch(file) or file.name.startswith(PINS)]
    if not known and not is_model(path):
        known = in_subfolders(path, helpers)
    helpers += [path / one for one in ("git_hash.txt",) if (path / one).is_file()]
    helpers += states_of(path)
    helpers += printed_by(path)
    helpers += deepspeed_of(path)
    if not known and len(configs) == 0 and is_model(path):
        refuse_broken(path)
        helpers_only = [one for one in helpers if one.name != "README.md"]
        target = (
            _foreign([], helpers_only, name, command) if helpers_only else Target("model", name)
        )
        target.kind = "model"
        card = path / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        if read_card(text, card.name, target.facts):
            target.read.append(f"{card.name}: hyper-parameters")
        if read_sentence_card(text, card.name, target.facts):
            target.read.append(f"{card.name}: loss and base")
        target.folder = path
        target.files = put_model(path, target.facts, target.read, target.not_read)
        return target
    if not known and not helpers:
        raise UsageError(
            "no-such-target",
            "nothing in this folder is known as a training, a run or a model.",
            where=str(path),
            received=", ".join(sorted(one.name for one in path.iterdir())[:5]) or "an empty folder",
            expected="run.json, adapter_config.json, config.json, training_config.yml, or a script",
        )
    target = _foreign(known, helpers, name, command)
    if is_model(path):
        target.folder = path
        target.files = put_model(path, target.facts, target.read, target.not_read)
    return target


def _run(path: Path, name: str) -> Target:
    from coltrain.reproduction.report.reading import read_run  # brings torch

    run = read_run(path)
    target = Target("run", name, run=run)
    target.not_read += run.problems
    put_run(run, target.facts)
    try:
        target.recipe = recipe_from_mapping(run.fact("recipe", {}))
        put_recipe(target.recipe, target.facts, "run.json")
        target.read.append("run.json: recipe, versions, device, data")
    except ColtrainError as error:
        target.not_read.append(f"run.json, recipe: {error.message}")
    target.read.append(f"metrics.jsonl: {len(run.steps)} steps")
    if (path / "model").is_dir():
        target.folder = path / "model"
        inner = Target("model", name)
        target.files = put_model(target.folder, inner.facts, target.read, target.not_read)
    return target


def _foreign(configs: list[Path], helpers: list[Path], name: str, command: str | None) -> Target:
    """A training of another library: its configuration and what lies beside it."""
    target = Target("transformers", name)
    facts = target.facts
    launch = None if command is None else read_launch(command, "--launch", facts)
    state: tuple[dict[str, Any], str] | None = None
    printed: list[Path] = []
    for file in helpers:
        if is_launch(file):
            text = file.read_text(encoding="utf-8", errors="replace")
            if read_installs(text, file.name, facts):
                target.read.append(f"{file.name}: versions")
            if command is None:
                launch = read_launch(text, file.name, facts) or launch
                target.read.append(f"{file.name}: the launch")
        elif file.name == "git_hash.txt":
            text = file.read_text(encoding="utf-8", errors="replace").strip()
            target.commits.append(text)
            if text in TAGS:
                put_version(facts, "colpali-engine", TAGS[text], file.name)
            else:
                target.not_read.append(
                    f"{file.name}: {text[:12] or 'empty'} is no tag of colpali-engine"
                )
        elif file.name == "trainer_state.json":
            content = read_json(file, target.not_read)
            if isinstance(content, dict):
                state = content, file.name
                target.read.append(f"{file.name}: steps and losses")
        elif is_printed(file):
            printed.append(file)
            continue
        elif file.suffix == ".json":
            put_deepspeed(read_json(file, target.not_read), file.name, facts)
            target.read.append(f"{file.name}: deepspeed's settings")
        elif read_requirements(
            file.read_text(encoding="utf-8", errors="replace"), file.name, facts
        ):
            target.read.append(f"{file.name}: versions")
        target.commits += _commits(file.read_text(encoding="utf-8", errors="replace"))
    for file in configs:
        if file.suffix in PYTHON:
            launch = _shell_of(file, target, command) or launch
    for file in configs:
        if file.suffix in CONFIGS and command is None:
            content = load_yaml(file, [])
            found = (
                read_containers(content, file.name, facts) if isinstance(content, dict) else None
            )
            if found is not None:
                launch = found
                target.read.append(f"{file.name}: the launch")
    imports = ""
    names: dict[str, Any] = {}
    for file in _in_order(configs, launch):
        if file.suffix in PYTHON:
            imports += _script(file, target, launch, configs)
            continue
        content = load_yaml(file, target.not_read)
        if isinstance(content, dict) and {"apiVersion", "services"} & set(content):
            continue
        if isinstance(content, dict) and read_accelerate(content, file.name, facts):
            target.read.append(f"{file.name}: the launch")
            continue
        if isinstance(content, dict) and "log_history" in content:
            state = content, file.name
            continue
        imports += file.read_text(encoding="utf-8", errors="replace")
        found = list(nested(content))
        target.calls += found
        target.read.append(f"{file.name}: {len(found)} parts")
        if not find(found, "TrainingArguments"):
            names |= _flat(content)
    target.calls = unique(target.calls)
    _library(target, imports, names)
    put_hand_work(target)
    put_launch_calls(target.calls, facts)
    _printed(target, printed)
    if state is not None:
        target.log = put_trainer_state(*state, facts)
        put_ranks_from_steps(*state, facts)
    return target


def _printed(target: Target, files: list[Path]) -> None:
    """What a training printed: the last file that has losses, and what every file says of weights."""
    for file in files:
        found = read_printed(file, target.facts)
        if found.read:
            target.read.append(f"{file.name}: {len(found.log)} lines of losses")
        target.printed.drawn += found.drawn
        target.printed.adapter += found.adapter
        if found.log:
            target.log, target.log_where = found.log, file.name


def _shell_of(file: Path, target: Target, command: str | None) -> Launch | None:
    """Versions, launch and card that a notebook states, or a script's header."""
    source = read_source(file)
    declared = read_requirements if file.suffix == ".py" else read_installs
    if declared(source.shell, file.name, target.facts):
        target.read.append(f"{file.name}: versions")
    target.commits += _commits(source.shell)
    read_gpu(source.machine, file.name, target.facts)
    if file.suffix != ".ipynb" or command is not None:
        return None
    return read_launch(source.shell, file.name, target.facts)


def _commits(text: str) -> list[str]:
    return re.findall(r"git\+\S*colpali\S*@([0-9a-f]{7,40})\b", text)


def _in_order(configs: list[Path], launch: Launch | None) -> list[Path]:
    """The file that the launch names last, so that its word counts."""
    started = Path(launch.script).name if launch and launch.script else ""
    scripts = [file for file in configs if file.suffix in PYTHON]
    imported = {
        node.module.rpartition(".")[2]
        for file in scripts
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.ImportFrom) and node.module
    } | {
        alias.name
        for file in scripts
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    kept = [file for file in configs if file.stem not in imported or file.suffix != ".py"]
    return sorted(kept or configs, key=lambda file: file.name == started)


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(read_source(file).python)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def _script(file: Path, target: Target, launch: Launch | None, configs: list[Path]) -> str:
    is_started = launch is not None and (
        launch.script is None or Path(launch.script).name == file.name or len(configs) == 1
    )
    options = None
    if launch is not None and is_started:
        options = launch.options | {POSITIONAL: launch.positional}
    environment = launch.environment if launch is not None else {}
    script = read_script(file, options, environment)
    target.calls += unique(nested(script.calls))
    target.mentions += script.mentions
    target.not_read += script.not_read
    target.read.append(f"{file.name}: {len(script.calls)} calls")
    lines = read_source(file).python.splitlines()
    return "\n".join(line for line in lines if re.match(r"\s*(from|import)\s", line))


def _flat(content: Any) -> dict[str, Any]:
    """Keys of a plain YAML without constructors, such as a dump of training arguments."""
    if not isinstance(content, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in content.items():
        if str(key).startswith(("x-", ".")):
            continue  # where YAML's anchors are kept
        if isinstance(value, dict) and set(value) == {"desc", "value"}:
            value = value["value"]  # as Weights & Biases writes a setting
        found |= _flat(value) if isinstance(value, dict) else {str(key): value}
    return found


def _library(target: Target, imports: str, names: dict[str, Any]) -> None:
    """Whose training it is, and its facts."""
    facts = target.facts
    if "pylate" in imports and is_sentence(target.calls, imports):
        target.kind = "pylate"
        target.not_read += put_sentence(target.calls, facts)
    elif is_engine(target.calls, imports):
        target.kind = "colpali-engine"
        target.not_read += put_engine(target.calls, facts, target.mentions)
    elif is_sentence(target.calls, imports):
        target.kind = "sentence-transformers"
        target.not_read += put_sentence(target.calls, facts)
    else:
        for call in target.calls:
            if call.last.endswith("TrainingArguments"):
                training_arguments(call, facts)
            elif call.last == "LoraConfig":
                lora_call(call, facts)
        loaded_model(target.calls, facts)
    if "per_device_train_batch_size" in names:
        training_arguments(Call("TrainingArguments", [], names, "training arguments"), facts)


def _tell(target: Target, settings: Sequence[str]) -> None:
    for setting in settings:
        key, has_value, text = setting.partition("=")
        if not has_value or key not in NAMES:
            raise UsageError(
                "unknown-fact",
                "--set names no fact about a training.",
                received=setting,
                expected="NAME=VALUE with one of " + ", ".join(sorted(NAMES)),
            )
        if key.startswith("versions."):
            put_version(target.facts, key.partition(".")[2], text, "--set", "told")
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        target.facts.put(key, UNKNOWN if value == "unknown" else value, "--set", "told")
