"""What does a page cost before the model, and how long does training wait for its pages?

A4 pages of 200 dots per inch as JPEG (text-like noise, in gray and in colour), from the bytes of the file to
the patches: ours, and the image processors of transformers alone, whose patches ours equal to the bit (Pillow)
or nearly (torchvision). Draft decoding, which lets JPEG leave out what a smaller page does not show, is
measured beside it and not used: the difference of its pixels is why. Then a few steps of the shipped
tiny recipe, once with pages prepared in the training process and once ahead in a worker.
"""

import io
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from alternating import arguments, finish, measured
from PIL import Image, ImageFilter
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from coltrain.data.rgb import to_gray_or_rgb
from coltrain.model.patches import lookup_table, patches_of

BUDGET = 768 * 28 * 28
SIZE = (1654, 2339)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    files = {mode: drawn(mode) for mode in ("L", "RGB")}
    ways = {
        f"{way}, {word}": (lambda function=function, file=files[mode]: function(file))
        for mode, word in (("L", "gray"), ("RGB", "colour"))
        for way, function in makers().items()
    }
    seconds = measured(ways, given.rounds, "cpu")
    best = {name: found["best_seconds"] for name, found in seconds.items()}
    figures = {
        "page_pixels": SIZE,
        "seconds": seconds,
        "times_as_fast_as": {
            name: best[name] / best["coltrain, " + name.rpartition(", ")[2]]
            for name in best
            if name.startswith("transformers")
        },
        "largest_difference_of_a_pixel": {
            name: float((way()[0] - ways["coltrain, " + name.rpartition(", ")[2]]()[0]).abs().max())
            for name, way in ways.items()
            if name.startswith(("transformers", "coltrain if"))
        },
        "draft_times_as_fast": {
            word: best[f"coltrain, {word}"] / best[f"coltrain if it decoded in draft, {word}"]
            for word in ("gray", "colour")
        },
        "waiting_share_of_a_step": {
            f"{workers} workers": waiting(workers, given.steps) for workers in (0, 1)
        },
    }
    finish(__doc__.splitlines()[0], figures, given)


def drawn(mode: str) -> bytes:
    """A page with the contrasts of text: blurred noise in the columns and lines of a page."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4), np.uint8)
    noise[::3] = 255
    page = Image.fromarray(noise).resize(SIZE).filter(ImageFilter.GaussianBlur(1))
    if mode == "RGB":
        page = Image.merge("RGB", (page, page.rotate(180), page))
    file = io.BytesIO()
    page.save(file, "JPEG", quality=85)
    return file.getvalue()


def makers() -> dict:
    pillow = Qwen2VLImageProcessorPil()
    size = {"shortest_edge": 56 * 56, "longest_edge": BUDGET}

    def opened(file: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(file))
        image.load()
        return image

    def ours(file: bytes):
        return patches_of(to_gray_or_rgb(opened(file)), pillow, lookup_table(pillow), BUDGET)

    def through(processor):
        def way(file: bytes):
            output = processor(opened(file).convert("RGB"), size=size, return_tensors="pt")
            return (output["pixel_values"],)

        return way

    def draft(file: bytes):
        height, width = smart_resize(SIZE[1], SIZE[0], max_pixels=BUDGET)
        image = Image.open(io.BytesIO(file))
        image.draft(image.mode, (width, height))  # the smallest that is no smaller than this
        small = image.resize((width, height), pillow.resample)
        return patches_of(small, pillow, lookup_table(pillow), BUDGET)

    ways = {
        "decoding alone": lambda file: opened(file),
        "coltrain": ours,
        "coltrain if it decoded in draft": draft,
        "transformers with Pillow": through(pillow),
    }
    if find_spec("torchvision") is not None:
        from transformers import Qwen2VLImageProcessor

        ways["transformers with torchvision"] = through(Qwen2VLImageProcessor())
    return ways


def waiting(num_workers: int, num_steps: int) -> float:
    """Share of a step that the loop waits for pages, after the first step."""
    from coltrain.recipe import load_recipe
    from coltrain.training.events import StepResult
    from coltrain.training.loop import Training

    overrides = [
        f"train.steps={num_steps}",
        "optimizer.warmup_steps=0",
        "eval.data=[]",
        "eval.every=null",
        f"data.num_workers={num_workers}",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        training = Training(
            load_recipe("tiny", overrides), Path(scratch) / "run", torch.device("cpu")
        )
        steps = [event for event in training.events() if isinstance(event, StepResult)][1:]
    return sum(step.wait_seconds for step in steps) / sum(step.seconds for step in steps)


if __name__ == "__main__":
    main()
