"""`data show` and `data check`: what a data set holds, and what two of them share."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, TokensOption, quiet_libraries
from coltrain.errors import UsageError

DEFAULT_TOKENS = 768
"""The budget of the published recipes."""
SHOWN = 20

HtmlOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write a page with pictures.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads that decode pages; default one a core.")
]


def data_show(
    source: Annotated[
        str, typer.Argument(help="A folder, a hub name, `tiny:train`, or a mapping as in recipes.")
    ],
    split: Annotated[str | None, typer.Option(help="Which split; default train.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the queries.")] = None,
    max_visual_tokens: TokensOption = None,
    html: HtmlOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count a data set, find what occurs twice in it, and show samples."""
    quiet_libraries()
    from coltrain.data.likeness import look_at
    from coltrain.data.survey import survey
    from coltrain.model.visual_tokens import visual_tokens
    from coltrain.reproduction.data_pages import counts_shown, write_survey

    budget = max_visual_tokens or DEFAULT_TOKENS
    collection = _collection(source, "train", split=split, config=config, language=language)
    number = len(collection.page_ids)
    with console.item_progress(f"looking at {collection.name}", number) as advance:
        looks = look_at(collection, num_threads=_threads(threads), on_item=advance)
    with console.item_progress("comparing pages", number) as advance:
        found = survey(
            collection,
            looks,
            lambda width, height: visual_tokens(width, height, budget),
            lambda rows: _advance(advance, rows),
        )
    found["max_visual_tokens"] = budget
    if html is not None:
        _writing(html, lambda: write_survey(html, collection, found))
    if as_json:
        console.print_json(found)
        return
    console.print_table(found["name"], ["", "number"], [list(row) for row in counts_shown(found)])
    console.print_table(
        "rows of each source",
        ["source", "rows"],
        [[name, f"{rows:,}"] for name, rows in found["rows_per_source"].items()],
    )
    sizes = found["sizes"]
    console.print_table(
        f"sizes, and visual tokens at {budget} at most",
        ["percentile", *(f"{share} %" for share in sizes["width"])],
        [
            [name, *(str(value) for value in sizes[key].values())]
            for name, key in (
                ("width [pixels]", "width"),
                ("height [pixels]", "height"),
                ("visual tokens", "visual_tokens"),
            )
        ],
    )
    _print_groups("pages that look the same", found["duplicate_pages"]["same_picture"])
    _print_groups("queries with the same words", found["duplicate_queries"]["same_words"])
    console.print_table(
        "known by",
        ["hash of", "SHA-256"],
        [["all", found["hash"]], *([k.replace("_", " "), v] for k, v in found["hashes"].items())],
    )
    known = found["expected"]
    console.print_text(
        f"expected: {known['rows']:,} rows ({known['source']})" if known else "expected: not known"
    )


def data_check(
    train: Annotated[str, typer.Argument(help="The training set; its split `train` by default.")],
    evaluation: Annotated[
        str, typer.Argument(metavar="EVAL", help="The evaluation set; its split `test` by default.")
    ],
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit with 1 where anything occurs in both.")
    ] = False,
    html: HtmlOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find pages and queries of an evaluation set that the training set has too."""
    quiet_libraries()
    from coltrain.data.leakage import as_document, find_leakage
    from coltrain.data.likeness import look_at
    from coltrain.reproduction.data_pages import write_leakage

    collections = [_collection(train, "train"), _collection(evaluation, "test")]
    looks = []
    for collection in collections:
        number = len(collection.page_ids)
        with console.item_progress(f"looking at {collection.name}", number) as advance:
            looks.append(look_at(collection, num_threads=_threads(threads), on_item=advance))
    with console.item_progress("comparing pages", len(collections[1].page_ids)) as advance:
        leakage = find_leakage(
            collections[0],
            looks[0],
            collections[1],
            looks[1],
            lambda rows: _advance(advance, rows),
        )
    document: dict[str, Any] = {}
    for side, collection, look in zip(("train", "eval"), collections, looks, strict=True):
        document[side] = {
            "name": collection.name,
            "hash": collection.fingerprint()["hash"],
            "pages": len(collection.page_ids),
            "queries": len(collection.queries),
            "blank_pages": int(look.blank.sum()) - len(look.broken),
            "broken_pages": {collection.page_ids[p]: why for p, why in look.broken.items()},
        }
    document |= as_document(leakage)
    document["eval_pages_in_train"] = leakage.num_eval_pages
    document["eval_queries_in_train"] = leakage.num_eval_queries
    document["verdict"] = _verdict(document)
    if html is not None:
        _writing(html, lambda: write_leakage(html, *collections, document))
    if as_json:
        console.print_json(document)
    else:
        _print_leakage(document)
    if fail_on_leak and (document["pages"] or document["queries"]):
        raise typer.Exit(1)


def _verdict(document: dict[str, Any]) -> str:
    there = document["eval"]
    pages, queries = document["eval_pages_in_train"], document["eval_queries_in_train"]
    if not pages and not queries:
        return (
            f"no leakage found: none of {there['pages']} pages and {there['queries']} queries of "
            f"{there['name']} occurs in {document['train']['name']}"
        )
    return (
        f"leakage: {pages} of {there['pages']} pages and {queries} of {there['queries']} queries of "
        f"{there['name']} occur in {document['train']['name']}"
    )


def _print_leakage(document: dict[str, Any]) -> None:
    if document["pages"]:
        console.print_table(
            "pages in both" + _first(document["pages"]),
            ["page of EVAL", "page of TRAIN", "kind", "likeness"],
            [
                [pair["eval"], pair["train"], pair["kind"], f"{pair['likeness']:.3f}"]
                for pair in document["pages"][:SHOWN]
            ],
        )
    if document["queries"]:
        console.print_table(
            "queries in both" + _first(document["queries"]),
            ["query of EVAL", "query of TRAIN", "kind", "text in EVAL"],
            [
                [pair["eval"], pair["train"], pair["kind"], pair["eval_text"]]
                for pair in document["queries"][:SHOWN]
            ],
        )
    for side in ("train", "eval"):
        there = document[side]
        for number, what in (
            (there["blank_pages"], "show nothing and were compared by their pixels only"),
            (len(there["broken_pages"]), "cannot be decoded and were not compared"),
        ):
            if number:
                console.print_text(f"{number} pages of {there['name']} {what}")
    console.print_text(document["verdict"])


def _print_groups(title: str, groups: list[list[str]]) -> None:
    if groups:
        console.print_table(
            f"{title}{_first(groups)}",
            ["ids", "number"],
            [
                [", ".join(group[:4]) + (", …" if len(group) > 4 else ""), str(len(group))]
                for group in groups[:SHOWN]
            ],
        )


def _first(items: list[Any]) -> str:
    return f" (the first {SHOWN} of {len(items)}; --json has all)" if len(items) > SHOWN else ""


def _collection(text: str, default_split: str, **more: str | None):
    """A data set from what was typed: a name, or a mapping in YAML."""
    import yaml

    from coltrain.data.sources import load_collection
    from coltrain.recipe import Source

    given = {key: one for key, one in more.items() if one is not None}
    try:
        value = yaml.safe_load(text) if text.lstrip().startswith("{") else text
        source = Source.model_validate(value)
        source = Source.model_validate({**dict(source), **given})
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(
            "not-a-source",
            "this cannot name a data set.",
            where="a data set",
            received=text,
            expected="`tiny`, a folder, a hub name, name@revision, or '{path: NAME, split: ONE}'",
        ) from error
    return load_collection(source, default_split)


def _advance(advance: Any, rows: int) -> None:
    for _ in range(rows):
        advance()


def _threads(number: int | None) -> int:
    return number or os.cpu_count() or 1


def _writing(path: Path, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise UsageError(
            "cannot-write",
            "the page cannot be written.",
            where=str(path),
            received=error.strerror or str(error),
        ) from error
