"""Train the tiny base from nothing and write it into the package: `make tiny-base`.

Takes about three minutes on one core. Equal seed, versions and one thread give equal bytes on one
machine; on another one rounding differs, and the test holds what matters: it reads, and does not
yet retrieve.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from coltrain.model.inputs import Preparer
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import DEFAULT_TEMPLATE
from coltrain.model.tiny.architecture import (
    fresh_tiny_model,
    tiny_config,
    tiny_image_processor,
    tiny_tokenizer,
)
from coltrain.model.tiny.reading import ReadingSettings, train_reader
from coltrain.recipe import Template

MAX_VISUAL_TOKENS = 64
_RECORD = "made.json"


def make_base(folder: Path, settings: ReadingSettings) -> None:
    """Train a reader and write it in the layout of a released Qwen2-VL with a projection."""
    torch.set_num_threads(1)  # the order of sums must not depend on the machine's cores
    tokenizer, image_processor = tiny_tokenizer(), tiny_image_processor()
    template = Template.model_validate(DEFAULT_TEMPLATE)
    preparer = Preparer(tokenizer, image_processor, template, MAX_VISUAL_TOKENS)
    model = fresh_tiny_model(settings.seed)
    accuracies = []
    for step in train_reader(model, preparer, settings):
        accuracies.append(step.accuracy)
        if step.step % 50 == 0:
            print(
                f"step {step.step}/{settings.steps}  loss {step.loss:.3f}  "
                f"squares read {step.accuracy:.3f}",
                file=sys.stderr,
            )
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = tiny_config()
    config.architectures = ["ColQwen2"]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    files = sorted(file for file in folder.iterdir() if file.name != _RECORD)
    record = {
        "made_by": "make tiny-base",
        "settings": asdict(settings),
        "squares_read_last_50_steps": round(sum(accuracies[-50:]) / len(accuracies[-50:]), 4),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Read the arguments; by default write the shipped base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=tiny_folder())
    parser.add_argument("--steps", type=int, default=ReadingSettings.steps)
    arguments = parser.parse_args()
    make_base(arguments.out, ReadingSettings(steps=arguments.steps))


if __name__ == "__main__":
    main()
