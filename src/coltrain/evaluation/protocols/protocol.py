"""What an evaluator does to a model's embeddings, and the name of it by versions."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal

from coltrain.errors import UsageError
from coltrain.evaluation.benchmarks.duplicates import ALL_PAGES, LAST_ROW
from coltrain.evaluation.scoring import Scoring
from coltrain.recipe.wording import nearest

Padding = Literal["masked", "corpus", "block"]
Version = tuple[int, ...]

BLOCK = 128
"""Queries, and pages, that colpali-engine's `score_multi_vector` pads and scores together."""

NAMED = (
    "mteb-1.38.34+engine-0.3.12",
    "mteb-2.12.15+engine-0.3.13",
    "mteb-2.19.2",
    "vidore-benchmark-5.0",
)
"""Those that published tables were made by."""


@dataclass(frozen=True)
class Protocol:
    """How one evaluator goes from a model to numbers.

    Attributes:
        name: Names and versions that determine it, as asked for.
        template: Registered template whose query text it sends; None for the model's own.
        score_dtype: Type in which embeddings are multiplied, and scores summed; bfloat16 where it
            is that of the weights.
        padding: What becomes of padding in the maximum: `masked`; `corpus`, where every page is
            filled with zero vectors to the longest page of the corpus; or `block`, to the longest
            of the 128 pages that are scored together.
        duplicates: Which pages are relevant to a query in several rows.
        edition: Edition of the data that it read.
        model_dtype: Type in which its wrapper loads the weights. Said, and set only where scores
            are in it too.
    """

    name: str
    template: str | None
    score_dtype: Literal["float32", "bfloat16"]
    padding: Padding
    duplicates: str
    edition: str | None
    model_dtype: str | None

    @property
    def scoring(self) -> Scoring:
        """Its arithmetic, for `evaluate`."""
        return Scoring(
            dtype="float32" if self.score_dtype == "float32" else "embeddings",
            padding="masked" if self.padding == "masked" else "zero",
            page_block=BLOCK if self.padding == "block" else None,
        )

    def record(self) -> dict[str, object]:
        """For the document of results."""
        return asdict(self)


DEFAULT = Protocol(
    name="coltrain",
    template=None,
    score_dtype="float32",
    padding="masked",
    duplicates=ALL_PAGES,
    edition=None,
    model_dtype=None,
)
"""The model's own template, float32 scores, a masked maximum, every judged page relevant."""

_PART = re.compile(r"(mteb|vidore-benchmark|engine)-(\d+(?:\.\d+)+)")

_MTEB = ((1, 38, 20), (1, 39, 7)), ((2, 0, 1), (2, 20, 0))
_TEXT_TWICE = (2, 0), (2, 12, 16)  # query prefix and suffix applied by mteb and by the engine
_OWN_PREFIX = (2, 19, 2)  # mteb sets the prefix itself, whatever the engine's is
_COPIES_UNDER_MTEB = (2, 7, 29)  # from here on it reads mteb/ rather than vidore/..._beir
_ENGINE = (((0, 3, 4), (0, 3, 18)),)
_ENGINE_WITHOUT_PREFIX = (0, 3, 13)
_VIDORE_BENCHMARK = (((5, 0), (5, 0, 0)),)
_ENGINE_OF_VIDORE_BENCHMARK = (((0, 3, 8), (0, 3, 18)),)


def protocol_named(name: str) -> Protocol:
    """The protocol of an evaluator at exact versions.

    Args:
        name: `mteb-X.Y.Z+engine-A.B.C`, or `mteb-X.Y.Z` alone where the engine makes no difference
            (from 2.19.2 on); `vidore-benchmark-5.0`, which stands for an engine of its time, or with
            `+engine-A.B.C`; `coltrain` for the default.

    Raises:
        UsageError: `[unknown-protocol]`, with the nearest; `[protocol-version]` for versions that
            nobody looked at; `[protocol-without-engine]`.

    Source:
        mteb, `models/colpali_models.py` (`models/model_implementations/` in 2.x) at every tag from
        1.38.20 to 2.20.0; colpali-engine, `processing_colqwen2.py` and `processing_utils.py` at
        v0.3.4 to v0.3.14 and in 0.3.18; vidore-benchmark v5.0.0, `evaluation/` and
        `retrievers/colqwen2_retriever.py`. docs/reference/protocols.md has the lines.

    Example:
        >>> protocol_named("mteb-2.12.15+engine-0.3.13").template
        'mteb-2.12.15+engine-0.3.13'
        >>> protocol_named("mteb-2.19.2").padding
        'corpus'
    """
    if name == DEFAULT.name:
        return DEFAULT
    parts = [_PART.fullmatch(part) for part in name.split("+")]
    kinds = [part[1] if part else None for part in parts]
    if kinds not in (
        ["mteb"],
        ["mteb", "engine"],
        ["vidore-benchmark"],
        ["vidore-benchmark", "engine"],
    ):
        raise UsageError(
            "unknown-protocol",
            "there is no such protocol.",
            where="--protocol",
            received=name,
            expected="mteb-X.Y.Z+engine-A.B.C or vidore-benchmark-5.0, such as "
            + ", ".join((*NAMED, DEFAULT.name)),
            suggestion=nearest(name, (*NAMED, DEFAULT.name)),
        )
    versions = [tuple(int(number) for number in part[2].split(".")) for part in parts if part]
    engine = versions[1] if len(versions) == 2 else None
    if kinds[0] == "mteb":
        return _mteb(name, versions[0], engine)
    return _vidore_benchmark(name, versions[0], engine)


def _mteb(name: str, mteb: Version, engine: Version | None) -> Protocol:
    _refuse_version(name, "mteb", mteb, _MTEB)
    if engine is None and mteb < _OWN_PREFIX:
        raise UsageError(
            "protocol-without-engine",
            "which text this mteb sends depends on the colpali-engine installed beside it.",
            where="--protocol",
            received=name,
            expected=f"{name}+engine-0.3.12 (prefix 'Query: ') or {name}+engine-0.3.13 (no prefix)",
            suggestion="an engine of the day the table was made; 0.3.13 appeared on 2025-10-27",
        )
    if engine is not None:
        _refuse_version(name, "engine", engine, _ENGINE)
    has_prefix = mteb >= _OWN_PREFIX or (engine is not None and engine < _ENGINE_WITHOUT_PREFIX)
    if _TEXT_TWICE[0] <= mteb < _TEXT_TWICE[1]:
        beside = "0.3.12" if has_prefix else "0.3.13"
        template = f"mteb-2.12.15+engine-{beside}"
    else:
        template = "engine-0.3.12" if has_prefix else "engine-0.3.13"
    return Protocol(
        name=name,
        template=template,
        score_dtype="float32",
        padding="corpus",
        duplicates=ALL_PAGES,
        edition="beir" if mteb < _COPIES_UNDER_MTEB else "mteb",
        model_dtype="float16",
    )


def _vidore_benchmark(name: str, version: Version, engine: Version | None) -> Protocol:
    _refuse_version(name, "vidore-benchmark", version, _VIDORE_BENCHMARK)
    if engine is not None:
        _refuse_version(name, "engine", engine, _ENGINE_OF_VIDORE_BENCHMARK)
    has_prefix = engine is None or engine < _ENGINE_WITHOUT_PREFIX
    return Protocol(
        name=name,
        template="engine-0.3.12" if has_prefix else "engine-0.3.13",
        score_dtype="bfloat16",
        padding="block",
        duplicates=LAST_ROW,
        edition="qa",
        model_dtype="bfloat16",
    )


def _refuse_version(
    name: str, what: str, version: Version, known: tuple[tuple[Version, Version], ...]
) -> None:
    if not any(first <= version <= last for first, last in known):
        ranges = [[".".join(map(str, bound)) for bound in span] for span in known]
        raise UsageError(
            "protocol-version",
            f"nobody has looked at what this version of {what} does.",
            where="--protocol",
            received=f"{what}-{'.'.join(map(str, version))}, in {name}",
            expected=", or ".join(f"{what} {first} to {last}" for first, last in ranges),
            suggestion="the protocol of the nearest version that is known; "
            "docs/reference/protocols.md says what changed when",
        )
