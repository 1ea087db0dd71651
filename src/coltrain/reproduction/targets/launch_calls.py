"""Processes and cards that a script asks for in Python: ray, accelerate, torch's spawn, clouds."""

import re
from collections.abc import Sequence
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.launch import read_gpu

# Which argument of which call is the number of processes: by name and by place.
_PROCESSES = {
    "ScalingConfig": ("num_workers", 1),  # ray.train
    "notebook_launcher": ("num_processes", 2),
    "debug_launcher": ("num_processes", 2),
    "spawn": ("nprocs", 2),  # torch.multiprocessing
    "start_processes": ("nprocs", 2),
    "LaunchConfig": ("nproc_per_node", 2),
    "TorchDistributor": ("num_processes", 0),  # pyspark
}
_MACHINES = (
    "gpu",
    "instance_type",
    "accelerator",
    "accelerators",
    "machine_type",
    "accelerator_type",
)
"""Arguments that name a card or a rented machine."""


def put_launch_calls(calls: Sequence[Call], facts: Facts) -> None:
    """Add processes, backend and card, where a script's own calls state them."""
    for call in calls:
        if call.last in _PROCESSES:
            name, place = _PROCESSES[call.last]
            number = call.argument(name, place, default=None)
            if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                facts.put("launch.world_size", number, f"{call.where}, {name}")
                facts.put("launch.launcher", call.last, call.where)
            if call.last == "ScalingConfig" and call.argument("use_gpu", 2, default=False) is False:
                facts.put("launch.backend", "cpu", f"{call.where}, use_gpu")
            if call.last == "debug_launcher":
                facts.put("launch.backend", "gloo", f"{call.where}, debug_launcher runs on the CPU")
        for key in _MACHINES:
            if call.has(key):
                read_gpu(_text(call.argument(key)), f"{call.where}, {key}", facts)


def _text(value: Any) -> str:
    if isinstance(value, Call):  # gpu=modal.gpu.A100(…)
        return re.sub(r"[._]", " ", value.name)
    if isinstance(value, Ref):
        return re.sub(r"[._]", " ", value.name)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return str(value)
