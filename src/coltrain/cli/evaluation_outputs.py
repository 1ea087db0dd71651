"""What `coltrain eval` leaves: a JSON document, ranking files, a page; and what it says besides."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coltrain import console
from coltrain.errors import DataError, UsageError

if TYPE_CHECKING:
    from coltrain.data.collection import Collection
    from coltrain.evaluation.evaluate import Evaluation
    from coltrain.evaluation.noise import Floor
    from coltrain.evaluation.store import EmbeddingStore
    from coltrain.model.retriever import Retriever

TOP_IN_JSON = 100


@dataclass(frozen=True)
class Evaluated:
    """One data set, done."""

    collection: "Collection"
    evaluation: "Evaluation"
    floors: "Sequence[Floor] | None"


@dataclass(frozen=True)
class Outputs:
    """Where results go.

    Attributes:
        out: Folder for evaluation.json, evaluation.html, rankings and embeddings.
        ranking: Ranking file, for one data set.
        html: Page.
        top_k: Pages of a query in ranking files; None for all.
    """

    out: Path | None
    ranking: Path | None
    html: Path | None
    top_k: int | None

    @property
    def wants_page(self) -> bool:
        """Whether a page is written, which shows single pages' embeddings."""
        return self.out is not None or self.html is not None

    def prepare(self, collections: "Sequence[Collection]") -> None:
        """Find what cannot be written before anything is encoded.

        Raises:
            UsageError: `[cannot-write]`, or `[one-ranking-file]` for several data sets.
            DataError: `[id-with-space]`.
        """
        from coltrain.evaluation.ranking_file import prepare_output, refuse_spaces

        if self.ranking is not None and len(collections) > 1:
            raise UsageError(
                "one-ranking-file",
                "a ranking file holds one data set, since query ids of several may be the same.",
                received=f"--ranking for {len(collections)} data sets",
                expected="one --on",
                suggestion="--out FOLDER, which gets a ranking file for each",
            )
        if self.ranking is not None:
            refuse_spaces(collections[0])
        inside = [] if self.out is None else [self.out / "evaluation.json"]
        for path in (*inside, self.ranking, self.html):
            if path is not None:
                prepare_output(path)

    def refuse_other(self, document: dict[str, Any], collections: "Sequence[Collection]") -> None:
        """Keep the results of another model or other data in the folder.

        Raises:
            UsageError: `[other-evaluation]`.
        """
        if self.out is None or not (self.out / "evaluation.json").is_file():
            return
        file = self.out / "evaluation.json"
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            names = [result["dataset"] for result in earlier["results"]]
        except (ValueError, KeyError, TypeError):
            earlier, names = {}, ["a document that cannot be read"]
        wanted = [collection.name for collection in collections]
        same = all(earlier.get(key) == document[key] for key in ("encoder", "scoring"))
        if not same or names != wanted:
            raise UsageError(
                "other-evaluation",
                "the folder holds the evaluation of another model, of other settings or other data.",
                where=str(file),
                received=f"{earlier.get('model')} on {', '.join(names)}",
                expected=f"{document['model']} on {', '.join(wanted)}, or no evaluation yet",
                suggestion="another --out; embeddings are shared by --cache",
            )

    def write(
        self,
        retriever: "Retriever",
        evaluated: Sequence[Evaluated],
        document: dict[str, Any],
    ) -> dict[str, Any]:
        """Write all files; the JSON document is returned."""
        from coltrain.evaluation.ranking_file import write_ranking
        from coltrain.evaluation.results import results_to_json, write_results

        more = dict(document)
        if any(one.floors is not None for one in evaluated):
            more["noise"] = {
                one.collection.name: [asdict(floor) for floor in one.floors or ()]
                for one in evaluated
            }
        rounding = {
            one.collection.name: asdict(one.evaluation.rounding)
            for one in evaluated
            if one.evaluation.rounding is not None
        }
        if rounding:
            more["rounding"] = rounding
        results = [one.evaluation.result for one in evaluated]
        if self.ranking is not None:
            [one] = evaluated
            write_ranking(self.ranking, one.collection, one.evaluation.scores, self.top_k)
        if self.out is not None:
            for one in evaluated:
                self._write_own_ranking(one)
            write_results(self.out / "evaluation.json", results, **more)
        if self.wants_page:
            self._write_page(retriever, evaluated, more)
        return results_to_json(results, **more)

    def _write_own_ranking(self, one: Evaluated) -> None:
        from coltrain.evaluation.ranking_file import write_ranking

        name = re.sub(r"[^\w.-]+", "_", one.collection.name)
        try:
            path = self.out / "rankings" / f"{name}.trec"
            write_ranking(path, one.collection, one.evaluation.scores, self.top_k)
        except DataError as error:
            console.stderr().print(
                f"note: no ranking file for {one.collection.name}: {error.received} holds white "
                "space; evaluation.json has the ranking",
                soft_wrap=True,
            )

    def _write_page(
        self, retriever: "Retriever", evaluated: Sequence[Evaluated], document: dict[str, Any]
    ) -> None:
        from coltrain.reproduction.evaluation_report import evaluation_page, section_of

        sections = [
            section_of(retriever, one.collection, one.evaluation, one.floors) for one in evaluated
        ]
        page = evaluation_page(sections, document)
        own = None if self.out is None else self.out / "evaluation.html"
        for path in (own, self.html):
            if path is not None:
                path.write_text(page, encoding="utf-8")
                console.stderr().print(f"page: {path}", soft_wrap=True)


def tell_what_happened(one: Evaluated, store: "EmbeddingStore | None") -> None:
    """On stderr: what came from disk, what was damaged, what was judged and is not there."""
    say = console.stderr()
    name, evaluation = one.collection.name, one.evaluation
    if store is not None:
        reused = len(one.collection.page_ids) - evaluation.num_encoded
        damaged = f", {store.num_damaged} damaged ones made again" if store.num_damaged else ""
        say.print(
            f"{name}: {evaluation.num_encoded} pages encoded, {reused} found in {store.folder}"
            f"{damaged}",
            soft_wrap=True,
        )
    missing = evaluation.result.judged_but_missing
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        say.print(
            f"note: {len(missing)} judged pages are not in {name} ({shown}); they count as relevant "
            "and not found, as in trec_eval",
            soft_wrap=True,
        )
    if evaluation.rounding is not None:
        changes = evaluation.rounding.measure_changes
        say.print(
            f"{name}: float16 on disk moved scores by {evaluation.rounding.max_score_change:.2g} at "
            f"most and nDCG@5 by {100 * changes['nDCG@5']:+.2f} points ({evaluation.rounding.num_pages} "
            f"of {len(one.collection.page_ids)} pages encoded now)",
            soft_wrap=True,
        )


def print_noise(one: Evaluated) -> None:
    """The noise floor as a table on stdout."""
    if one.floors is None:
        return
    console.print_table(
        f"noise floor of {one.collection.name}: the same, computed otherwise",
        [
            "what changes",
            "largest score change",
            "queries with another top 10",
            "nDCG@5 x 100",
            "largest of a query",
        ],
        [
            [
                floor.name,
                *(
                    [floor.error, "", "", ""]
                    if floor.error is not None
                    else [
                        f"{floor.max_score_change:.1e}",
                        f"{floor.num_reordered} of {floor.num_queries}",
                        f"{100 * floor.measure_changes['nDCG@5']:+.2f}",
                        f"{100 * floor.max_query_change:.1f}",
                    ]
                ),
            ]
            for floor in one.floors
        ],
    )
