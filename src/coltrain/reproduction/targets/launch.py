"""How a training was started: the command in a shell or SLURM script, accelerate's configuration."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coltrain.reproduction.targets.deepspeed import put_deepspeed
from coltrain.reproduction.targets.facts import Facts

_LAUNCHERS = (
    "accelerate",
    "torchrun",
    "deepspeed",
    "python",
    "python3",
    "srun",
    "mpirun",
    "mpiexec",
)
_RENTS = re.compile(
    r"(sudo )?(gcloud|aws|az|sky|modal|runpodctl|vastai|dstack|sbatch|salloc|bsub|qsub|oarsub|docker|"
    r"singularity|apptainer|export|module)\b"
)
"""Commands that say on which machine what follows runs."""
_GPUS = re.compile(r"\b(v100|t4|p100|a100|a10g?|h100|h200|l4|l40s?|a6000|rtx\w*|mi250x?)\b", re.I)
CAPABILITIES = {
    "p100": "6.0",
    "v100": "7.0",
    "t4": "7.5",
    "a100": "8.0",
    "a10": "8.6",
    "a10g": "8.6",
    "a6000": "8.6",
    "l4": "8.9",
    "l40": "8.9",
    "l40s": "8.9",
    "h100": "9.0",
    "h200": "9.0",
}


@dataclass
class Launch:
    """A command that starts a training.

    Attributes:
        where: File and line.
        script: The Python file or the configuration that it runs.
        options: `--name value` that go to the script.
        positional: Its other words.
        environment: Variables that are set before.
    """

    where: str
    script: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def read_launch(text: str, name: str, facts: Facts) -> Launch | None:
    """Read a shell script, or a command line that the user gave, into facts.

    Args:
        text: The script or the command.
        name: Of the file, for the facts.
        facts: Gets the world size, the launcher and the GPU.

    Returns:
        The last command that trains, or None.
    """
    environment: dict[str, str] = {}
    found: Launch | None = None
    nodes, tasks, gpus = 1, None, None
    joined = re.sub(r"\\\s*\n", " ", text)
    for number, line in enumerate(joined.splitlines(), 1):
        where = f"{name}, line {number}"
        stripped = line.strip()
        if stripped.startswith("#SBATCH"):
            nodes = _number(stripped, r"(?:--nodes|-N)[ =](\d+)") or nodes
            tasks = _number(stripped, r"--ntasks-per-node[ =](\d+)") or tasks
            total = _number(stripped, r"(?:--ntasks|-n)[ =](\d+)")
            tasks = total / nodes if total else tasks
            gpus = (
                _number(stripped, r"--gpus-per-node[ =](?:\w+:)?(\d+)")
                or _number(stripped, r"--gres[ =]gpu:(?:[\w.]+:)?(\d+)")
                or gpus
            )
            read_gpu(stripped, where, facts)
            continue
        if not stripped or stripped.startswith("#"):
            read_gpu(stripped, where, facts)
            continue
        if _RENTS.match(stripped):
            read_gpu(stripped, where, facts)
        for part in re.split(r"&&|;|\|\|", stripped):
            launch = _command(part, where, environment, facts, nodes, tasks, gpus)
            found = launch or found
    return found


def _command(
    text: str,
    where: str,
    environment: dict[str, str],
    facts: Facts,
    nodes: int,
    tasks: float | None,
    gpus: int | None,
) -> Launch | None:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None
    if words[:1] == ["export"]:
        words = words[1:]
    own = dict(environment)
    while words and re.match(r"^\w+=", words[0]):
        key, _, value = words.pop(0).partition("=")
        own[key] = _expanded(value, own)
        if not words or text.lstrip().startswith("export"):
            environment[key] = own[key]
    words = [_expanded(word, own) for word in words]
    if words and Path(words[0]).name in ("mpirun", "mpiexec"):
        each = _number(text, r"\s--?(?:np|n)[ =](\d+)")
        tasks, is_mpi = each / nodes if each else tasks, True
    else:
        is_mpi = False
    is_slurm = is_mpi or (bool(words) and Path(words[0]).name == "srun")
    if is_slurm:
        total = _number(text, r"(?:--ntasks|-n)[ =](\d+)")
        tasks = total / nodes if total else tasks
        read_gpu(text, where, facts)
    start = next(
        (
            n
            for n, word in enumerate(words)
            if Path(word).name in _LAUNCHERS and word not in ("srun", "mpirun", "mpiexec")
        ),
        None,
    )
    if start is None:
        return None
    words = words[start:]
    launcher = Path(words[0]).name
    text = shlex.join(words)
    if "torch.distributed" in text:
        launcher = "torchrun"
    script = next((n for n, w in enumerate(words) if w.endswith((".py", ".yaml", ".yml"))), None)
    module = next((n + 1 for n, word in enumerate(words) if word == "-m"), None)
    if (
        script is not None
        and words[script].endswith((".yaml", ".yml"))
        and launcher == "accelerate"
    ):
        later = [n for n, w in enumerate(words) if w.endswith(".py")]
        script = later[0] if later else script
    if script is None and module is None:
        return None
    end = script if script is not None else module
    assert end is not None
    _world(launcher, words[:end], where, own, facts, nodes, tasks, gpus, is_slurm)
    options, positional = _options(words[end + 1 :])
    return Launch(where, words[end], options, positional, own)


def _world(
    launcher: str,
    before: list[str],
    where: str,
    environment: dict[str, str],
    facts: Facts,
    nodes: int,
    tasks: float | None,
    gpus: int | None,
    is_slurm: bool,
) -> None:
    text = " ".join(before)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    devices = len([one for one in visible.split(",") if one.strip()]) if visible else gpus
    facts.put(
        "launch.launcher", "srun" if is_slurm and launcher.startswith("python") else launcher, where
    )
    if visible is not None and visible.strip().lower() in ("", "-1", "none", "void"):
        facts.put("launch.backend", "cpu", f"{where}, CUDA_VISIBLE_DEVICES")
    if re.search(r"--(cpu|use_cpu)\b", text):
        facts.put("launch.backend", "cpu", where)
    if launcher == "accelerate":
        size = _number(text, r"--num[-_]processes[ =](\d+)")
        if size is None and "--config_file" not in text and "--multi_gpu" in text:
            size = devices
        kind = re.search(r"--mixed[-_]precision[ =](\w+)", text)
        if kind:
            facts.put("precision.compute", _precision(kind[1]), where)
        if size is not None:
            facts.put("launch.world_size", size, where)
        return
    if launcher in ("torchrun", "deepspeed"):
        each = _number(text, r"--(?:nproc[-_]per[-_]node|num[-_]gpus)[ =](\d+)")
        included = re.search(r"--include[ =](\S+)", text)
        if each is None and included:  # host:0,1@other:2,3
            each, nodes = len(re.findall(r"[:,]\d+", included[1])), 1
        if each is None and re.search(r"--nproc[-_]per[-_]node[ =](gpu|auto)", text):
            each = devices
        many = _number(text, r"--n(?:um[-_])?nodes[ =](\d+)") or nodes
        if each is None and launcher == "torchrun":
            each = 1
        if each is not None:
            facts.put("launch.world_size", each * many, where)
        return
    if is_slurm and tasks:
        facts.put("launch.world_size", int(tasks * nodes), where)
        return
    if devices:  # else one process drives as many GPUs as it sees, and nobody knows how many
        facts.put("launch.world_size", 1, where)
        facts.put("launch.data_parallel", devices, where)


def read_accelerate(content: dict[str, Any], name: str, facts: Facts) -> bool:
    """Read accelerate's configuration; False where the mapping is none."""
    if not {"compute_environment", "distributed_type", "num_processes"} & set(content):
        return False
    if content.get("num_processes") is not None:
        facts.put("launch.world_size", int(content["num_processes"]), f"{name}, num_processes")
    if content.get("mixed_precision") not in (None, "no"):
        precision = _precision(str(content["mixed_precision"]))
        facts.put("precision.compute", precision, f"{name}, mixed_precision")
    kind = str(content.get("distributed_type", ""))
    if content.get("use_cpu") or kind == "MULTI_CPU":
        facts.put("launch.backend", "cpu", f"{name}, use_cpu")
    facts.put("launch.launcher", "accelerate", f"{name}, distributed_type {kind}")
    put_deepspeed(content.get("deepspeed_config"), f"{name}, deepspeed_config", facts)
    return True


def read_containers(content: dict[str, Any], name: str, facts: Facts) -> Launch | None:
    """Commands of the containers in a Kubernetes or compose file."""
    if not {"apiVersion", "services"} & set(content):
        return None
    launch = None
    for command in _commands(content):
        launch = read_launch(command, name, facts) or launch
    return launch


def _commands(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _commands(one)
    if not isinstance(value, dict):
        return
    words: list[str] = []
    for key in ("entrypoint", "command", "args"):
        part = value.get(key) or []
        words += shlex.split(part) if isinstance(part, str) else [str(one) for one in part]
    if words:  # `bash -c "torchrun …"` holds a command in one word
        inner = [word for word in words if " " in word]
        yield "\n".join(inner) if inner else shlex.join(words)
    for one in value.values():
        yield from _commands(one)


def _options(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    options: dict[str, Any] = {}
    positional: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("--"):
            positional.append(word)
            continue
        key, has_value, value = word.lstrip("-").partition("=")
        if not has_value and place < len(words) and not words[place].startswith("--"):
            value = words[place]
            place += 1
            has_value = "="
        options[key.replace("-", "_")] = value if has_value else True
    return options, positional


def _precision(name: str) -> str:
    return {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}.get(name, name)


# Machines that clouds rent, and their card: AWS, Azure, Google.
_RENTED = (
    (re.compile(r"\bp3(dn)?\.\d*x?large|standard_nc\d+r?s_v3\b|standard_nd40rs_v2", re.I), "v100"),
    (re.compile(r"\bg4dn\.|standard_nc\d+as_t4_v3", re.I), "t4"),
    (
        re.compile(r"\bp4de?\.|standard_n[cd]\d+a\w*_a100|standard_nd96\w*|\ba2-\w+gpu", re.I),
        "a100",
    ),
    (re.compile(r"\bg5\.\d*x?large|standard_nv\d+\w*a10", re.I), "a10g"),
    (re.compile(r"\bg6\.\d*x?large|\bg2-standard", re.I), "l4"),
    (re.compile(r"\bp5e?n?\.|\ba3-\w+gpu|standard_nc\d+ad\w*h100", re.I), "h100"),
)


def read_gpu(text: str, where: str, facts: Facts) -> None:
    """The card that a text names, by itself or by a rented machine, and what it can do."""
    match = _GPUS.search(text)
    rented = next((card for pattern, card in _RENTED if pattern.search(text)), None)
    if match or rented:
        name = match[1].lower() if match else str(rented)
        facts.put("hardware.gpu", name.upper(), where)
        if name in CAPABILITIES:
            facts.put("hardware.capability", CAPABILITIES[name], where, "derived")


def _expanded(word: str, environment: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, _, default = (match[1] or match[2]).partition(":-")
        return environment.get(name, default or match[0])

    return re.sub(r"\$\{(\w+(?::-[^}]*)?)\}|\$(\w+)", value, word)


def _number(text: str, pattern: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None
