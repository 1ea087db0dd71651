"""`eval --mteb`: the same through mteb itself."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain import console
from coltrain.cli.evaluation_data import Wanted
from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.evaluation.results import Result
    from coltrain.evaluation.scoring import Scoring
    from coltrain.model.retriever import Retriever


def refuse_other_options(given: dict[str, bool]) -> None:
    """Say which options mean nothing beside --mteb.

    Raises:
        UsageError: `[not-with-mteb]`
    """
    useless = [name for name, is_given in given.items() if is_given]
    if useless:
        raise UsageError(
            "not-with-mteb",
            "mteb measures by itself, and writes its own files.",
            received=f"--mteb with {', '.join(useless)}",
            expected="--json, --mteb-results, and what chooses data, model and protocol",
        )


def refuse_no_tasks(wanted: Sequence[Wanted]) -> None:
    """Say what mteb knows no task for.

    Raises:
        UsageError: `[mteb-needs-a-task]`
    """
    others = [one.collection.name for one in wanted if one.task is None]
    if others:
        raise UsageError(
            "mteb-needs-a-task",
            "mteb evaluates on its registered tasks only.",
            where="--on",
            received=", ".join(others),
            expected="a benchmark or a task (`coltrain benchmarks list`)",
            suggestion="the task's name, with --data-dir for a local copy of its data",
        )


def through_mteb(
    retriever: "Retriever",
    wanted: Sequence[Wanted],
    *,
    name: str,
    revision: str | None,
    scoring: "Scoring",
    cache: Path | None,
    results_dir: Path | None,
) -> tuple[list["Result"], str]:
    """Results of tasks as mteb computes them, and mteb's version.

    Measures are mteb's, in its five decimals; those of single queries, which it does not keep, are
    ours on what it measured.
    """
    from coltrain.evaluation.identity import encoder_identity
    from coltrain.evaluation.mteb_model import SearchModel, model_meta
    from coltrain.evaluation.mteb_run import evaluate_through_mteb, result_of_mteb
    from coltrain.evaluation.store import EmbeddingStore

    meta = model_meta(retriever, name, revision)
    results, version = [], ""
    # Of a task in several languages mteb asks for the same pages once for each.
    with (
        tempfile.TemporaryDirectory() as own,
        EmbeddingStore(cache or Path(own), encoder_identity(retriever)) as store,
    ):
        for one in wanted:
            assert one.task is not None
            num_pages = len(one.collection.page_ids) * max(1, len(one.task.task.subsets))
            total = num_pages + len(one.collection.queries)
            with console.item_progress(f"mteb, {one.collection.name}", total) as advance:
                model = SearchModel(retriever, meta, scoring=scoring, store=store, on_item=advance)
                found = evaluate_through_mteb(model, one.task, results_dir)
            results.append(result_of_mteb(one.task, found))
            version = found.version
    return results, version


def name_for_mteb(model: str, said: str | None) -> str:
    """`organisation/name` of a model: as said, its hub name, or one made of its folder's."""
    if said is not None:
        return said
    if model.count("/") == 1 and not Path(model).exists() and not model.startswith((".", "/")):
        return model
    return f"coltrain/{Path(model).absolute().name}"
