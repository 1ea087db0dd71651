"""What run.json says about the machine, the model and the probe."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from coltrain import __version__
from coltrain.data.row_contents import content_hash, lines_of
from coltrain.model.build import BuiltModel, adapted_modules
from coltrain.recipe import Template, as_mapping, full_hash, result_hash, to_yaml
from coltrain.training.maxsim_kernel import maxsim_facts
from coltrain.training.numerics import kernel_facts, tensors_hash
from coltrain.training.precision.scaling import Scaling
from coltrain.training.run_folder import now
from coltrain.training.setup import Setup, deviations, notices_at_start

PROBE_QUERY = "What is the total revenue in 2019?"
PROBE_PAGE = (1654, 2339)  # pixels of an A4 page at 200 dots per inch
_PACKAGES = (
    "coltrain",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "pillow",
    "torchvision",
    "numpy",
    "bitsandbytes",
)


def facts_at_start(setup: Setup) -> dict[str, Any]:
    """What run.json says before the first step."""
    recipe = setup.recipe
    return {
        "coltrain": __version__,
        "state": "running",
        "recipe": as_mapping(recipe),
        "recipe_yaml": to_yaml(recipe),
        "result_hash": result_hash(recipe),
        "full_hash": full_hash(recipe),
        "versions": versions(),
        "device": device_facts(setup.device),
        "commit": commit(),
        "started": now(),
        "finished": None,
        "stopped_by": None,
        "seconds": None,
        "energy_kwh": None,
        "energy_unknown": None,
        "data": {
            kind: [
                {
                    **data.fingerprint(),
                    "content_hash": content_hash(lines_of(data, digests)),
                    "check": _counts(record),
                }
                for data, record, digests in zip(
                    collections, setup.checks[kind], setup.page_digests[kind], strict=True
                )
            ]
            for kind, collections in (("train", setup.train_data), ("eval", setup.eval_data))
        },
        "plan": {
            "num_steps": setup.num_steps,
            "batches_per_epoch": setup.plan.batches_per_epoch,
        },
        "precision": precision_facts(setup),
        "probe": probe(setup.built),
        "reading": setup.built.preparer.settings(),
        "template_hash": template_hash(recipe.model.template),
        "kernels": {
            **kernel_facts(setup.built, setup.device),
            "maxsim": maxsim_facts(recipe.loss),
        },
        "parameters": parameter_counts(setup.built),
        "base_weights_hash": setup.built.weights_hash,
        "projection_hash": setup.built.projection_hash,
        "projection_from_base": setup.built.projection_from_file,
        "start_from": None
        if setup.built.started_from is None
        else setup.built.started_from.facts(),
        "trained_weights_hash": tensors_hash(setup.trained),
        "candidates_per_query": None,
        "deviations": deviations(recipe),
        "warnings": notices_at_start(setup),
    }


def rows_of(setup: Setup) -> dict[str, list[tuple[str, Iterator[list]]]]:
    """Every row that the run uses, for `RunFolder.save_row_contents`."""
    return {
        kind: [
            (data.name, lines_of(data, digests))
            for data, digests in zip(collections, setup.page_digests[kind], strict=True)
        ]
        for kind, collections in (("train", setup.train_data), ("eval", setup.eval_data))
    }


def precision_facts(setup: Setup) -> dict[str, Any]:
    """In what a run computes, and what it keeps out of that."""
    model = setup.built.model
    compute = setup.recipe.precision.compute
    facts: dict[str, Any] = {"compute": compute, "weights": str(model.dtype).removeprefix("torch.")}
    if not setup.scales_gradients:
        return facts
    return facts | {
        "keep_float32": list(setup.keep_float32),
        "float32_modules": list(model.kept_in_float32),
        "overflow": None if setup.overflow is None else setup.overflow.facts(),
        **scaling_facts(Scaling.start(compute)),
    }


def scaling_facts(scaling: Scaling) -> dict[str, Any]:
    """How often a float16 run skipped a step, and by what it multiplies gradients now."""
    return {"skipped_steps": scaling.num_skipped, "gradient_scale": scaling.scale}


def kept_in_float32(facts: Mapping[str, Any]) -> list[str] | None:
    """What a run's record says was kept in float32; None where nothing was looked for."""
    return facts.get("precision", {}).get("keep_float32")


def _counts(record: dict[str, Any]) -> dict[str, Any]:
    """A check without its list of rows, which stands in data_check.json."""
    return {name: value for name, value in record.items() if name != "rows"}


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # on the path, not installed
            found[name] = "unknown"
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """What computes."""
    facts: dict[str, Any] = {"type": device.type, "system": platform.system()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 2),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    else:
        facts |= {"name": cpu_name()}
        facts |= {"threads": torch.get_num_threads()}
    return facts


def cpu_name() -> str:
    """The processor as Linux calls it, else as Python does."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: Python's name then, which is often the architecture only
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of coltrain's own source, with `+changes` if it was edited; None if installed."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", folder, *arguments], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    if head is None or git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def template_hash(template: Template) -> str:
    """Of the strings that a model reads around a query and a page, whatever their name."""
    return hashlib.sha256(json.dumps(template.strings).encode()).hexdigest()[:16]


def probe(built: BuiltModel) -> dict[str, Any]:
    """Exact token ids of a query and a page: where a drifted prompt or budget would show."""
    preparer = built.preparer
    page = preparer.prepare_page(Image.new("RGB", PROBE_PAGE, "white"))
    merge = preparer.merge_size
    num_visual_tokens = page.grid_height * page.grid_width // merge**2
    return {
        "query": PROBE_QUERY,
        "query_ids": preparer.query_ids(PROBE_QUERY),
        "page": f"white, {PROBE_PAGE[0]} x {PROBE_PAGE[1]} pixels",
        "page_ids": preparer.page_ids(num_visual_tokens),
        "visual_tokens": num_visual_tokens,
    }


def parameter_counts(built: BuiltModel) -> dict[str, Any]:
    """Trainable and frozen parameters, how they are stored, and what LoRA adapts."""
    trainable, frozen = Counter[str](), Counter[str]()
    for parameter in built.model.parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        (trainable if parameter.requires_grad else frozen)[kind] += parameter.numel()
    modules = adapted_modules(built)
    return {
        "trainable": trainable.total(),
        "frozen": frozen.total(),
        "by_dtype": {"trainable": dict(trainable), "frozen": dict(frozen)},
        "lora_modules": len(modules),
        "lora_modules_in_vision_tower": sum(name.startswith("visual.") for name in modules),
    }
