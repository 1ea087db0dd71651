"""A model as mteb takes it: `coltrain.mteb`.

mteb's wrapper for encoders holds the whole corpus as one tensor, padded to its longest page. Here
mteb gets a model that searches by itself, one page at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coltrain.data.collection import Collection, Query
from coltrain.data.images import StoredImages
from coltrain.data.tables import with_encoded_images
from coltrain.errors import ModelError, UsageError
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.scoring import Scoring
from coltrain.evaluation.store import EmbeddingStore
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
    `search` encodes the queries and then page after page, of which no more than a batch is held.
    A task with several languages is indexed and searched once for each: with a store its pages are
    encoded once.

    Args:
        retriever: The model.
        meta: What mteb and its leaderboard should know of it; `model_meta` makes one.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.
        store: Where page embeddings are kept and looked for.
        on_item: Called after each page or query, to show progress.

    Attributes:
        rankings: By subset, what the last search of it returned.
    """

    def __init__(
        self,
        retriever: Retriever,
        meta: ModelMeta,
        *,
        scoring: Scoring | None = None,
        store: EmbeddingStore | None = None,
        on_item: Callable[[], None] | None = None,
    ) -> None:
        self.retriever = retriever
        self.store = store
        self.rankings: dict[str, dict[str, dict[str, float]]] = {}
        self._meta = meta
        self._scoring = scoring
        self._on_item = on_item
        self._corpus: Dataset | None = None

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
        encode_kwargs: Mapping[str, Any] | None = None,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The best pages of each query.

        Args:
            queries: Columns `id` and `text`.
            task_metadata: The task's.
            hf_subset: Of the task.
            top_k: How many pages to keep of each query; ties at the last place go to the larger
                id, as in mteb's own search.
            encode_kwargs: `batch_size`, which matters on a GPU only.
            top_ranked: Of reranking tasks.
            **_: Split and number of processes, which make no difference here.

        Returns:
            Query id to page id to score.

        Raises:
            UsageError: `[not-a-page-task]` The task is one of reranking.
            ModelError: `[not-finite-embedding]`
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
        page_ids = [str(page) for page in corpus["id"]]
        asked = [
            Query(str(query), text)
            for query, text in zip(queries["id"], queries["text"], strict=True)
        ]
        evaluation = evaluate(
            self.retriever,
            Collection(
                name=task_metadata.name,
                layout="corpus",
                page_ids=page_ids,
                queries=asked,
                rows=[],
                # mteb measures; here any judgement will do.
                qrels={query.id: {page_ids[0]: 1} for query in asked},
                images=StoredImages(
                    with_encoded_images(corpus, task_metadata.name), range(len(corpus)), Path()
                ),
            ),
            self._on_item,
            scoring=self._scoring,
            batch_size=int((encode_kwargs or {}).get("batch_size", 1)),
            store=self.store,
            keep_pages=False,
            top_k=top_k,
        )
        self.rankings[hf_subset] = {
            query: dict(zip(best["page_ids"], best["scores"], strict=True))
            for query, best in (evaluation.result.ranking or {}).items()
        }
        return self.rankings[hf_subset]


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
        "n_embedding_parameters": built.model.language_model.embed_tokens.weight.numel(),
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
