"""A model as mteb takes it: `coltrain.mteb`.

mteb's wrapper for encoders holds the whole corpus as one tensor, padded to its longest page. Here
mteb gets a model that searches by itself, one page at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from coltrain.data.images import StoredImages
from coltrain.data.tables import with_encoded_images
from coltrain.errors import ModelError, UsageError
from coltrain.evaluation.rank import PageScorer
from coltrain.evaluation.scoring import Scoring
from coltrain.model.retriever import Retriever
from coltrain.model.retriever import load as load_retriever

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.models.model_meta import ModelMeta


def require_mteb() -> None:
    """Say how to install mteb where it is not.

    Raises:
        UsageError: `[mteb-missing]`
    """
    from importlib.util import find_spec

    if find_spec("mteb") is None:
        raise UsageError(
            "mteb-missing",
            "mteb is not installed.",
            received="no package mteb",
            expected="mteb 2.20 or later, an optional dependency",
            suggestion="pip install 'coltrain[mteb]'",
        )


class SearchModel:
    """A retriever that mteb can search with: its `SearchProtocol`.

    `mteb.evaluate(SearchModel(retriever, meta), task)` evaluates it. `index` notes the corpus,
    `search` encodes the queries and then page after page, of which one is held at a time beside the
    scores. Ties at the last place that is kept go to the larger id, as mteb's heap has it.

    Args:
        retriever: The model.
        meta: What mteb and its leaderboard should know of it; `model_meta` makes one.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.
        on_item: Called after each encoded page or query, to show progress.

    Attributes:
        rankings: By subset, what the last search of it returned.
    """

    def __init__(
        self,
        retriever: Retriever,
        meta: ModelMeta,
        *,
        scoring: Scoring | None = None,
        on_item: Callable[[], None] | None = None,
    ) -> None:
        self._retriever = retriever
        self._meta = meta
        self._scoring = scoring
        self._on_item = on_item
        self._corpus: Dataset | None = None
        self.rankings: dict[str, dict[str, dict[str, float]]] = {}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb knows of the model."""
        return self._meta

    def index(self, corpus: Dataset, *, task_metadata: Any, **_: Any) -> None:
        """Note what is searched; nothing is encoded before the queries are known.

        Args:
            corpus: Columns `id` and `image`.
            task_metadata: The task's.
            **_: Split, subset and settings, which make no difference here.

        Raises:
            UsageError: `[not-a-page-task]` The task searches something else than page images.
        """
        columns = corpus.column_names
        if "image" not in columns or "text" in columns:
            raise UsageError(
                "not-a-page-task",
                "the task does not search page images alone.",
                where=task_metadata.name,
                received=f"documents with {', '.join(columns)}",
                expected="documents with id and image",
            )
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: Any,
        hf_subset: str,
        top_k: int,
        top_ranked: dict[str, list[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The best pages of each query.

        Args:
            queries: Columns `id` and `text`.
            task_metadata: The task's.
            hf_subset: Of the task.
            top_k: How many pages to keep.
            top_ranked: Of reranking tasks.
            **_: Split and settings, which make no difference here.

        Returns:
            Query id to page id to score.

        Raises:
            UsageError: `[not-a-page-task]` The task is one of reranking.
        """
        if top_ranked is not None:
            raise UsageError(
                "not-a-page-task",
                "the task reranks pages that others found.",
                where=task_metadata.name,
                received="top_ranked",
                expected="a task that searches the whole corpus",
            )
        assert self._corpus is not None, "mteb calls index before search"
        corpus, self._corpus = self._corpus, None
        embedded = self._retriever.encode_queries(queries["text"], self._on_item)
        scorer = PageScorer(self._in_type_of_scores(embedded), self._scoring)
        images = StoredImages(
            with_encoded_images(corpus, task_metadata.name), range(len(corpus)), Path()
        )
        scored = []
        for place in range(len(images)):
            [page] = self._retriever.encode_pages([images[place]], self._on_item)
            scored.append(scorer.score(page))
        self.rankings[hf_subset] = best_pages(
            scorer.scores(scored), list(queries["id"]), list(corpus["id"]), top_k
        )
        return self.rankings[hf_subset]

    def _in_type_of_scores(self, queries: list) -> list:
        if self._scoring is not None and self._scoring.dtype == "embeddings":
            return [query.to(self._retriever.built.model.dtype) for query in queries]
        return queries


def best_pages(
    scores: Tensor, query_ids: list[str], page_ids: list[str], top_k: int
) -> dict[str, dict[str, float]]:
    """The highest scores of each query, ties by descending id, as mteb's heap keeps them.

    Args:
        scores: Queries x pages.
        query_ids: Of the rows.
        page_ids: Of the columns.
        top_k: How many to keep.

    Raises:
        UsageError: `[not-a-score]` A score is not a number.

    Example:
        >>> best_pages(torch.tensor([[1.0, 2.0, 2.0]]), ["q"], ["a", "b", "c"], 2)
        {'q': {'c': 2.0, 'b': 2.0}}
    """
    if torch.isnan(scores).any():
        query, page = scores.isnan().nonzero()[0].tolist()
        raise UsageError(
            "not-a-score",
            "a score in the ranking is not a number, so the ranking has no order.",
            where=f"query {query_ids[query]!r}, page {page_ids[page]!r}",
            received="nan",
            expected="a number",
            suggestion="look for NaN in the embeddings; float16 overflows where bfloat16 does not",
        )
    by_id = sorted(range(len(page_ids)), key=page_ids.__getitem__, reverse=True)
    values, places = scores[:, by_id].sort(dim=1, descending=True, stable=True)
    return {
        query: {page_ids[by_id[place]]: value for place, value in zip(found, kept, strict=True)}
        for query, found, kept in zip(
            query_ids, places[:, :top_k].tolist(), values[:, :top_k].tolist(), strict=True
        )
    }


def model_meta(
    retriever: Retriever, name: str, revision: str | None = None, **fields: Any
) -> ModelMeta:
    """What a leaderboard asks of a model, filled in as far as the model says it.

    Args:
        retriever: The model.
        name: `organisation/name`, as on the hub.
        revision: Commit of the hub model.
        **fields: Any other field of mteb's `ModelMeta`, which then has this value:
            `training_datasets` (the tasks of mteb whose training data it saw), `license`,
            `release_date`, `languages`, `public_training_data`, …

    Raises:
        UsageError: `[mteb-missing]`, or `[not-a-model-name]`.
        ModelError: `[unknown-meta-field]` mteb's ModelMeta has no such field.

    Source:
        mteb 2.20.0, models/model_meta.py; the entry of vidore/colqwen2-v1.0 in
        models/model_implementations/colqwen_models.py.
    """
    require_mteb()
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    if name.count("/") != 1 or not all(name.split("/")):
        raise UsageError(
            "not-a-model-name",
            "mteb knows a model by its name on the hub.",
            received=name,
            expected="organisation/name",
        )
    unknown = sorted(set(fields) - set(ModelMeta.model_fields))
    if unknown:
        raise ModelError(
            "unknown-meta-field",
            "mteb's ModelMeta has no such field.",
            where=name,
            received=", ".join(unknown),
            expected=", ".join(ModelMeta.model_fields),
        )
    built = retriever.built
    sizes = [(p.numel(), p.numel() * p.element_size()) for p in built.model.parameters()]
    said = {
        "loader": load,
        "name": name,
        "revision": revision or "no_revision_available",
        "release_date": None,
        "languages": None,
        "n_parameters": sum(number for number, _ in sizes),
        "n_embedding_parameters": built.model.get_input_embeddings().weight.numel(),
        "memory_usage_mb": round(sum(size for _, size in sizes) / 2**20),
        "max_tokens": None,
        "embed_dim": built.model.dim,
        "license": None,
        "open_weights": None,
        "public_training_code": "https://github.com/coltrain/coltrain",
        "public_training_data": None,
        "framework": ["ColPali", "PyTorch", "Transformers", "safetensors"],
        "similarity_fn_name": ScoringFunction.MAX_SIM,
        "use_instructions": bool(built.preparer.template.query_prefix),
        "training_datasets": None,
        "adapted_from": built.base if built.lora is not None else None,
        "modalities": ["image", "text"],
        "model_type": ["late-interaction"],
    }
    return ModelMeta(**{**said, **fields})


def load(
    model_name: str, revision: str | None = None, device: str | None = None, **settings: Any
) -> SearchModel:
    """A model for mteb, in the form of its loaders: `ModelMeta(loader=coltrain.mteb.load, …)`.

    Args:
        model_name: As for `coltrain.load`.
        revision: Of a hub model.
        device: Where it computes; the CPU where none is said.
        **settings: Further arguments of `coltrain.load`.

    Raises:
        UsageError: `[mteb-missing]`
        ModelError: The model cannot be loaded.
    """
    require_mteb()
    retriever = load_retriever(model_name, revision=revision, device=device or "cpu", **settings)
    name = model_name if model_name.count("/") == 1 else f"coltrain/{Path(model_name).name}"
    return SearchModel(retriever, model_meta(retriever, name, revision))
