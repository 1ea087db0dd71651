"""How much does each deliberate difference from the other libraries move?

A model that was trained on drawn pages, read in two ways that differ in one thing: the largest
difference of an embedding's coordinate and of a score, and nDCG@5 under both, on the drawn test
pages. Where these would not show a difference (they all have one size, no transparency, and fit the
budget), the pages are changed for both sides, and the row says how. A small model on synthetic
pages: the sizes say what a difference can do, not what it does to ViDoRe.

    coltrain demo --out RUN
    python benchmarks/deviations.py RUN [RESULT.json]
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import coltrain
from coltrain.data.drawn import drawn_collection
from coltrain.evaluation.measures import measure
from coltrain.late_interaction import maxsim, maxsim_zero_padded
from coltrain.recipe import template_named

COLLECTION = drawn_collection("test")
Score = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Deviation:
    """One difference and its size; None where the queries' tokens are not the same."""

    what: str
    pages: str
    page_embedding: float
    query_embedding: float | None
    score: float
    ndcg_ours: float
    ndcg_theirs: float


def masked(queries: Sequence[Tensor], pages: Sequence[Tensor]) -> Tensor:
    """Our scores: each pair alone, in float32."""
    rows = [torch.cat([maxsim(query[None], page[None]) for page in pages], 1) for query in queries]
    return torch.cat(rows)


def as_drawn(number: int, page: Image.Image) -> Image.Image:
    return page


def cut(number: int, page: Image.Image) -> Image.Image:
    """Uneven lengths: none to three of the eight lines are cut off at the foot."""
    return page.crop((0, 0, page.width, page.height - 28 * (number % 4)))


def larger(number: int, page: Image.Image) -> Image.Image:
    """Pages that have to be made smaller to fit the budget, back to the size of drawing."""
    return page.resize((300, 300), Image.Resampling.BICUBIC)


def on_glass(number: int, page: Image.Image) -> Image.Image:
    """The paper is transparent, and what lies under it is black, as drawing programs save it."""
    ink = Image.fromarray(255 - np.asarray(page.convert("L")))
    glass = Image.new("RGBA", page.size, (0, 0, 0, 0))
    glass.putalpha(ink)
    return glass


class Sides:
    """A model's embeddings under settings, each encoded once."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.known: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def embed(self, change, **settings) -> tuple[list[Tensor], list[Tensor]]:
        """Queries and pages."""
        key = f"{change.__name__} {sorted(settings.items())}"
        if key not in self.known:
            settings |= {"other_template": True} if "template" in settings else {}
            retriever = coltrain.load(self.model, **settings)
            pages = (
                change(number, COLLECTION.page_image(number))
                for number in range(len(COLLECTION.page_ids))
            )
            texts = [query.text for query in COLLECTION.queries]
            self.known[key] = retriever.encode_queries(texts), retriever.encode_pages(pages)
        return self.known[key]


def ndcg(scores: Tensor) -> float:
    ranking = {
        query.id: dict(zip(COLLECTION.page_ids, row, strict=True))
        for query, row in zip(COLLECTION.queries, scores.tolist(), strict=True)
    }
    return measure(COLLECTION.qrels, ranking).measures["nDCG@5"]


def largest(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Over the tokens that both have."""
    return max(
        (a[: len(b)] - b[: len(a)]).abs().max().item() for a, b in zip(one, other, strict=True)
    )


def compare(
    sides: Sides,
    what: str,
    theirs: dict | None = None,
    *,
    both: dict | None = None,
    change=as_drawn,
    score: Score = masked,
    after: Callable[[Tensor], Tensor] = lambda embedding: embedding,
) -> Deviation:
    """Ours against theirs, which differ in settings, in scoring, or in what is done afterwards."""
    both, theirs = both or {}, theirs or {}
    queries, pages = sides.embed(change, **both)
    other = [[after(part) for part in side] for side in sides.embed(change, **both, **theirs)]
    is_shifted = "template" in theirs and not same_start(sides.model, theirs["template"])
    ours, scores = masked(queries, pages), score(*other)
    return Deviation(
        what,
        change.__name__.replace("_", " "),
        largest(pages, [page.float() for page in other[1]]),
        None if is_shifted else largest(queries, [query.float() for query in other[0]]),
        (ours - scores).abs().max().item(),
        ndcg(ours),
        ndcg(scores),
    )


def same_start(model: str, template: str) -> bool:
    """Whether a template begins queries as the model's own does."""
    own = coltrain.load(model).built.preparer.template
    return own.query_prefix == template_named(template).query_prefix


def without_eps(embedding: Tensor) -> Tensor:
    """Normalised once more as the engine does it: over the norm, whatever that is."""
    return embedding / embedding.norm(dim=-1, keepdim=True)


def deviations(model: str) -> list[Deviation]:
    """All rows of the table."""
    sides = Sides(model)
    # 300 x 300 pixels within 64 visual tokens would be 7 x 7, which the model cannot read.
    room = {"max_visual_tokens": 66}
    own = coltrain.load(model).built.preparer.template.name
    templates = {
        "no prefix": "engine-0.3.13",
        "line break behind the augmentation tokens": "transformers-native",
        "page prompt that ends in a line break": "engine-0.3.3",
        "prefix and augmentation tokens doubled": "mteb-2.12.15+engine-0.3.12",
        "no prefix, augmentation tokens doubled": "mteb-2.12.15+engine-0.3.13",
    }
    return [
        compare(sides, "zero padding, blocks of 128", change=cut, score=maxsim_zero_padded),
        compare(sides, "zero padding and bfloat16 scores", change=cut, score=in_bfloat16),
        compare(sides, "norm without an eps", after=without_eps),
        compare(sides, "sequential positions", {"positions": "sequential"}),
        compare(sides, "torchvision", {"image_backend": "torchvision"}, both=room, change=larger),
        compare(sides, "transparency on white", {"alpha": "white"}, change=on_glass),
        *[
            compare(sides, f"{what}: {name} for {own}", {"template": name})
            for what, name in templates.items()
        ],
    ]


def in_bfloat16(queries: Sequence[Tensor], pages: Sequence[Tensor]) -> Tensor:
    """As the engine scores a model in bfloat16; the embeddings are rounded for it."""
    return maxsim_zero_padded(*[[part.bfloat16() for part in side] for side in (queries, pages)])


def negative_matches(model: str) -> float:
    """Share of (query token, page) pairs whose best match is below 0: what zero padding can move."""
    queries, pages = Sides(model).embed(cut)
    tokens = torch.cat(queries)
    return torch.stack([(tokens @ page.T).amax(1) for page in pages]).lt(0).float().mean().item()


def main(model: str, result: str | None = None) -> None:
    torch.set_num_threads(1)
    found = deviations(model)
    print(f"{len(COLLECTION.page_ids)} drawn test pages, {len(COLLECTION.queries)} queries")
    print("differences: largest of an embedding's coordinates (pages, queries) and of a score")
    width = max(len(row.what) for row in found)
    print(f"{'':{width}}  {'on pages':8}  pages    queries  score    nDCG@5 ours  theirs")
    for row in found:
        query = "-      " if row.query_embedding is None else f"{row.query_embedding:.1e}"
        numbers = f"{row.page_embedding:.1e}  {query}  {row.score:.1e}"
        ndcgs = f"{row.ndcg_ours:11.3f}  {row.ndcg_theirs:6.3f}"
        print(f"{row.what:{width}}  {row.pages:8}  {numbers}  {ndcgs}")
    share = negative_matches(model)
    print(f"query tokens without a match of 0 or more, over pages: {share:.1e}")
    zero = torch.zeros(1, 128)
    print(
        f"a zero vector: {without_eps(zero)[0, 0]} without an eps, {F.normalize(zero)[0, 0]} here"
    )
    if result is not None:
        versions = {
            name: version(name) for name in ("torch", "transformers", "pillow", "torchvision")
        }
        content = {
            "command": "python benchmarks/deviations.py RUN, of `coltrain train tiny`",
            "versions": {"coltrain": coltrain.__version__, **versions},
            "device": "cpu",
            "negative_matches": share,
            "deviations": [asdict(row) for row in found],
        }
        with open(result, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
