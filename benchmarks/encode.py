"""How fast are pages encoded beside colpali-engine, transformers and sentence-transformers?

One small model of the real classes, exported to each library, which encodes it as it ships: images in,
embeddings out, with each one's own image processor, in batches of all pages (theirs are padded; coltrain takes
pages one by one on a CPU). Pages are uneven, within the budget, and not decoded. That all sides do the same
work is checked first: embeddings agree (transformers numbers positions otherwise, so only its time counts).
"""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from alternating import arguments, finish, measured
from PIL import Image
from small_model import small_model

from coltrain.model.export import colpali_engine, sentence_transformers, transformers_native
from coltrain.model.retriever import Retriever, load

ROWS_AND_COLUMNS = [(20, 15), (16, 16), (15, 12), (12, 10)]
CLOSE = 1e-4


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    pages = [noise(rows, columns) for rows, columns in ROWS_AND_COLUMNS]
    tiny = load("tiny", template="engine-0.3.13", max_visual_tokens=768).built
    retriever = Retriever(replace(tiny, model=small_model(0.0, checkpointing=False)))
    with tempfile.TemporaryDirectory() as scratch:
        others = libraries(retriever.built, Path(scratch), given.device, pages)
        retriever.built.model.to(given.device)
        ways = {"coltrain": lambda: retriever.encode_pages(pages), **others}
        expected = ways["coltrain"]()
        differences = {name: largest_difference(way(), expected) for name, way in others.items()}
        seconds = measured(ways, given.rounds, given.device)
    for name in ("colpali-engine", "sentence-transformers"):
        assert differences[name] < CLOSE, differences
    best = {name: found["best_seconds"] for name, found in seconds.items()}
    figures = {
        "visual_tokens": [rows * columns for rows, columns in ROWS_AND_COLUMNS],
        "seconds": seconds,
        "times_as_fast_as": {name: best[name] / best["coltrain"] for name in others},
        "largest_difference_of_an_embedding": differences,
    }
    finish(__doc__.splitlines()[0], figures, given)


def libraries(built, folder: Path, device: str, pages) -> dict:
    """The same model in each library; a function that encodes the pages."""
    from colpali_engine.models import ColQwen2, ColQwen2Processor
    from sentence_transformers import MultiVectorEncoder
    from transformers import ColQwen2ForRetrieval
    from transformers import ColQwen2Processor as NativeProcessor

    for name, write in (
        ("engine", colpali_engine.write_merged),
        ("native", transformers_native.write),
        ("sentences", sentence_transformers.write),
    ):
        (folder / name).mkdir()
        write(built, folder / name, torch.float32)
    engine = ColQwen2.from_pretrained(str(folder / "engine"), dtype=torch.float32).eval().to(device)
    engine_processor = ColQwen2Processor.from_pretrained(str(folder / "engine"))
    native = ColQwen2ForRetrieval.from_pretrained(folder / "native", dtype=torch.float32)
    native = native.eval().to(device)
    native_processor = NativeProcessor.from_pretrained(folder / "native")
    sentences = MultiVectorEncoder(str(folder / "sentences"), device=device)

    def with_engine():
        batch = engine_processor.process_images(pages).to(device)
        with torch.no_grad():
            return unpadded(engine(**batch), batch)

    def with_native():
        batch = native_processor.process_images(pages).to(device)
        with torch.no_grad():
            return unpadded(native(**batch).embeddings, batch)

    return {
        "colpali-engine": with_engine,
        "transformers": with_native,
        "sentence-transformers": lambda: sentences.encode_document(pages, batch_size=len(pages)),
    }


def unpadded(embeddings, batch):
    masks = batch["attention_mask"].bool()
    return [embedding[mask] for embedding, mask in zip(embeddings, masks, strict=True)]


def largest_difference(found, expected) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((torch.as_tensor(a).cpu() - b).abs().max()) for a, b in pairs)


def noise(rows: int, columns: int) -> Image.Image:
    draws = np.random.default_rng(rows * columns)
    return Image.fromarray(draws.integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8))


if __name__ == "__main__":
    main()
