"""What does a page cost before the model, and how long does training wait for its pages?

A4 pages of 200 dots per inch as JPEG (text-like noise, in gray and in colour), from the bytes of the file to
the patches: ours, and the image processors of transformers alone, whose patches ours equal to the bit (Pillow)
or nearly (torchvision). Beside it draft decoding (`data.decoding=draft`), which lets JPEG leave out what a
smaller page does not show, with the difference of its pixels, and of embeddings on drawn pages that were made six
times as large; and the cache of resized pages (`data.page_cache`). Then a few steps of the shipped
tiny recipe, once with pages prepared in the training process and once ahead in a worker.
"""

import atexit
import io
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from alternating import arguments, finish, measured
from PIL import Image, ImageFilter
from transformers import Qwen2VLImageProcessorPil

import coltrain
from coltrain.data import Collection
from coltrain.data.drawn.page import draw
from coltrain.data.drawn.windows import drawn_pages
from coltrain.data.rgb import to_gray_or_rgb
from coltrain.model.page_cache import PageCache, page_identity
from coltrain.model.patches import ResizedTo, lookup_table, patches_of, resized
from coltrain.model.vision_cache import FeatureStore

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
            if not name.startswith(("decoding", "coltrain, "))
        },
        **{
            f"{way.replace(' ', '_')}_times_as_fast_as_without": {
                word: best[f"coltrain, {word}"] / best[f"coltrain {way}, {word}"]
                for word in ("gray", "colour")
            }
            for way in ("in draft", "from its page cache")
        },
        "draft_against_exact": {
            word: levels(files[mode], BUDGET) for mode, word in (("L", "gray"), ("RGB", "colour"))
        }
        | {"drawn pages": drawn_pages_in_draft()},
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
        pixels = resized(to_gray_or_rgb(opened(file)), pillow, BUDGET)
        return patches_of(pixels, pillow, lookup_table(pillow))

    def through(processor):
        def way(file: bytes):
            output = processor(opened(file).convert("RGB"), size=size, return_tensors="pt")
            return (output["pixel_values"],)

        return way

    def draft(file: bytes):
        pixels = resized(drafted(file, pillow, BUDGET), pillow, BUDGET)
        return patches_of(pixels, pillow, lookup_table(pillow))

    ways = {
        "decoding alone": lambda file: opened(file),
        "coltrain": ours,
        "coltrain in draft": draft,
        "coltrain from its page cache": from_cache(ours, pillow),
        "transformers with Pillow": through(pillow),
    }
    if find_spec("torchvision") is not None:
        from transformers import Qwen2VLImageProcessor

        ways["transformers with torchvision"] = through(Qwen2VLImageProcessor())
    return ways


def from_cache(ours, processor):
    """Pages that were kept before, by their file: read, checked, cut into patches."""
    scratch = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, scratch)
    preparer = coltrain.load("tiny").built.preparer.using(max_visual_tokens=BUDGET // 28**2)
    preparer.image_processor = processor
    caches = {}

    def way(file: bytes):
        if file not in caches:
            images = Named([file])
            collection = Collection("page", "rows", ["page"], [], [], {}, images)
            store = FeatureStore(Path(scratch), page_identity(preparer, "exact"), 1.0)
            caches[file] = PageCache(store, collection, preparer)
        return (caches[file].page(0).pixel_values,)

    return way


class Named(list):
    """Files as a collection's images."""

    def encoded(self, index: int) -> bytes:
        return self[index]

    def pixels(self, index: int) -> Image.Image:
        image = Image.open(io.BytesIO(self[index]))
        image.load()
        return image


def drafted(file: bytes, processor, max_pixels: int) -> Image.Image:
    """As `StoredImages.pixels` decodes for `data.decoding=draft`."""
    image = Image.open(io.BytesIO(file))
    image.draft(image.mode, ResizedTo.by(processor, max_pixels)(*image.size))
    image.load()
    return image


def levels(file: bytes, max_pixels: int, processor=None) -> dict[str, float]:
    """How far resized pixels of draft and exact decoding lie apart, of 256 levels."""
    processor = processor or Qwen2VLImageProcessorPil()
    with Image.open(io.BytesIO(file)) as whole:
        exact = resized(whole, processor, max_pixels).astype(int)
    apart = np.abs(resized(drafted(file, processor, max_pixels), processor, max_pixels) - exact)
    return {"mean, of 256 levels": float(apart.mean()), "largest, of 256 levels": int(apart.max())}


def drawn_pages_in_draft(num_pages: int = 12, times: int = 6) -> dict[str, float]:
    """Pixels and embeddings of the tiny base on drawn pages, enlarged, saved as JPEG."""
    retriever = coltrain.load("tiny")
    preparer = retriever.built.preparer
    apart, cosines = [], []
    for page in drawn_pages("test")[:num_pages]:
        image = draw(list(page.words))
        large = image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        large.save(stream, "JPEG", quality=85)
        file = stream.getvalue()
        processor = preparer.image_processor
        apart.append(levels(file, preparer.max_pixels, processor))
        with Image.open(io.BytesIO(file)) as whole:
            small = drafted(file, processor, preparer.max_pixels)
            exact, near = retriever.encode_pages([whole.convert("RGB"), small.convert("RGB")])
        cosines.append((exact * near).sum(dim=-1))
    every = torch.cat(cosines)
    return {
        "mean, of 256 levels": float(np.mean([one["mean, of 256 levels"] for one in apart])),
        "largest, of 256 levels": max(one["largest, of 256 levels"] for one in apart),
        "mean cosine of embeddings": every.mean().item(),
        "least cosine of embeddings": every.min().item(),
    }


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
