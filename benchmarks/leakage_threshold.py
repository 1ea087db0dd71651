"""How well copies of pages are told from other pages: recall over planted ones, and false alarms.

    python benchmarks/leakage_threshold.py DATA_FOLDER... [--share 0.35] [--seed 0]

Each folder holds `train` and `test` in the corpus layout. A share of the test pages is planted in
every way below, and looked for among all pages; then all pages are compared with one another.
"""

import argparse
import io
import json
from collections.abc import Callable

import numpy as np
from PIL import Image

from coltrain.data import load_collection
from coltrain.data.likeness import ALIKE, SIDE, Looks, alike_pages, likeness, look_at, thumbnail
from coltrain.recipe import Source


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    size = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = image.width * share, image.height * share
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 30": lambda image: jpeg(image, 30),
    "JPEG quality 60": lambda image: jpeg(image, 60),
    "JPEG quality 95": lambda image: jpeg(image, 95),
    "x 0.5": lambda image: resized(image, 0.5),
    "x 0.5, JPEG quality 30": lambda image: jpeg(resized(image, 0.5), 30),
    "x 0.75": lambda image: resized(image, 0.75),
    "x 1.3, JPEG quality 60": lambda image: jpeg(resized(image, 1.3), 60),
    "x 2": lambda image: resized(image, 2),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "1 % cut off each side": lambda image: cropped(image, 0.01),
    "3 % cut off each side": lambda image: cropped(image, 0.03),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--share", type=float, default=0.35)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = np.random.default_rng(arguments.seed)
    every, planted, names = [], [], []
    for folder in arguments.folders:
        for split in ("train", "test"):
            collection = load_collection(Source.model_validate(f"{folder}/{split}"), split)
            every.append(look_at(collection))
            names += [f"{collection.name}/{page_id}" for page_id in collection.page_ids]
            first = len(names) - len(collection.page_ids)
            if split == "test":
                planted += [
                    (first + place, collection.page_image(place))
                    for place in range(len(collection.page_ids))
                    if draw.random() < arguments.share
                ]
    together = Looks(
        [digest for looks in every for digest in looks.pixels],
        np.concatenate([looks.thumbnails for looks in every]),
        np.concatenate([looks.sizes for looks in every]),
        {},
    )
    recall = {}
    for way, change in WAYS.items():
        thumbnails = np.array([thumbnail(change(image)) for _, image in planted])
        looks = Looks([b""] * len(planted), thumbnails, np.zeros((len(planted), 2), int), {})
        pairs = alike_pages(looks, together)
        hits = {pair.left for pair in pairs if pair.right == planted[pair.left][0]}
        of_one = likeness(together.thumbnails[[place for place, _ in planted]], thumbnails)
        recall[way] = {
            "found": len(hits),
            "planted": len(planted),
            "other_pages_found": sum(pair.right != planted[pair.left][0] for pair in pairs),
            "lowest_likeness": round(float(of_one.min()), 3),
        }
    natural = sorted(alike_pages(together), key=lambda pair: -pair.likeness)
    document = {
        "threshold": ALIKE,
        "side": SIDE,
        "pages": len(names),
        "pairs": len(names) * (len(names) - 1) // 2,
        "recall": recall,
        "natural_pairs_found": [
            [names[pair.left], names[pair.right], round(pair.likeness, 3), pair.is_exact]
            for pair in natural
        ],
    }
    print(json.dumps(document, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
