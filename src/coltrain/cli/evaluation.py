"""`eval` and `encode`: what a model makes of pages and queries."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from coltrain import console
from coltrain.cli.evaluation_outputs import (
    TOP_IN_JSON,
    Evaluated,
    Outputs,
    print_noise,
    tell_what_happened,
)
from coltrain.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    RevisionOption,
    TokensOption,
    quiet_libraries,
    retriever_for,
)
from coltrain.errors import UsageError

BatchSizeOption = Annotated[
    int,
    typer.Option(
        min=1, help="Items at a time: a padded batch on a GPU; on a CPU it changes no result."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder of page embeddings, shared by evaluations; else inside --out."),
]


def evaluate_model(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    on: Annotated[
        list[str],
        typer.Option("--on", help="Data set: `tiny`, a folder, or a hub name; may be repeated."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all of it; the same command goes on where it was cut off."),
    ] = None,
    ranking: Annotated[
        Path | None, typer.Option(help="TREC ranking file to write, for one data set.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Page to write: how it went, in HTML.")] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Pages of a ranking: 100 in JSON and all in a file otherwise."),
    ] = None,
    batch_size: BatchSizeOption = 1,
    cache: CacheOption = None,
    cache_dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="Type of embeddings on disk; what float16 changes is printed."),
    ] = "float32",
    padding: Annotated[
        Literal["masked", "zero"],
        typer.Option(
            help="zero: padding may win the maximum, in blocks of 128 pages, as elsewhere."
        ),
    ] = "masked",
    noise: Annotated[
        bool, typer.Option("--noise", help="Measure the noise floor: several times the work.")
    ] = False,
    revision: RevisionOption = None,
    max_visual_tokens: TokensOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank every page of a data set for every query, and measure."""
    quiet_libraries()
    from coltrain.data.sources import load_collection
    from coltrain.evaluation.encoding import is_padded
    from coltrain.evaluation.evaluate import evaluate, with_intervals
    from coltrain.evaluation.identity import encoder_identity
    from coltrain.evaluation.noise import noise_floor, variations
    from coltrain.evaluation.scoring import Scoring
    from coltrain.evaluation.store import EmbeddingStore
    from coltrain.recipe import Source

    try:
        sources = [Source.model_validate("tiny:test" if name == "tiny" else name) for name in on]
    except ValueError as error:
        raise UsageError(
            "not-a-source",
            "this cannot name a data set.",
            where="--on",
            received=", ".join(map(repr, on)),
            expected="`tiny`, a folder, a hub name, or name@revision",
        ) from error
    collections = [load_collection(source, "test") for source in sources]
    outputs = Outputs(out, ranking, html, top_k)
    outputs.prepare(collections)
    retriever = retriever_for(model, revision, template, max_visual_tokens, dtype, device)
    identity = encoder_identity(retriever, is_padded(retriever, batch_size))
    scoring = Scoring(padding=padding)
    document = {"model": model, "encoder": identity, "scoring": asdict(scoring)}
    outputs.refuse_other(document, collections)
    folder = cache or (None if out is None else out / "embeddings")
    evaluated = []
    for collection in collections:
        total = len(collection.page_ids) + len(collection.queries)
        with contextlib.ExitStack() as stack:
            store = None
            if folder is not None:
                store = stack.enter_context(EmbeddingStore(folder, identity, cache_dtype))
            advance = stack.enter_context(
                console.item_progress(f"encoding {collection.name}", total)
            )
            evaluation = evaluate(
                retriever,
                collection,
                advance,
                scoring=scoring,
                batch_size=batch_size,
                store=store,
                keep_pages=outputs.wants_page,
                top_k=top_k or TOP_IN_JSON,
            )
        floors = None
        if noise:
            total *= len(variations(retriever))
            with console.item_progress(f"noise of {collection.name}", total) as advance:
                floors = noise_floor(retriever, collection, evaluation, scoring, advance)
        evaluation = replace(evaluation, result=with_intervals(evaluation.result))
        evaluated.append(Evaluated(collection, evaluation, floors))
        tell_what_happened(evaluated[-1], store)
    document = outputs.write(retriever, evaluated, document)
    if as_json:
        console.print_json(document)
        return
    console.print_results([one.evaluation.result for one in evaluated])
    for one in evaluated:
        print_noise(one)


def encode(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    pages: Annotated[
        list[Path] | None, typer.Option(help="Image files: one or more names after --pages.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="A text file with one query a line, kept as typed.")
    ] = None,
    revision: RevisionOption = None,
    max_visual_tokens: TokensOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Write embeddings: page_0 …, query_0 … (tokens x dim, float32) and query_0_ids …."""
    if not pages and queries is None:
        raise UsageError(
            "nothing-to-encode", "there is nothing to encode.", expected="--pages or --queries"
        )
    quiet_libraries()
    from coltrain.evaluation.export import encode_to_file, read_pages, read_queries

    images = read_pages(pages or [])
    texts = read_queries(queries) if queries is not None else []
    retriever = retriever_for(model, revision, template, max_visual_tokens, dtype, device)
    with console.item_progress("encoding", len(images) + len(texts)) as advance:
        encode_to_file(retriever, images, texts, out, advance)
    console.stderr().print(f"{len(images)} pages, {len(texts)} queries: {out}", soft_wrap=True)


def spread_pages(arguments: list[str]) -> list[str]:
    """`--pages a.png b.png` as `--pages a.png --pages b.png`, which the parser understands."""
    spread, after_pages = [], False
    for place, argument in enumerate(arguments):
        if argument == "--pages":
            after_pages = True
            following = arguments[place + 1 : place + 2]
            if not following or following[0].startswith("--"):
                raise UsageError("nothing-to-encode", "--pages needs at least one image file.")
            continue  # each file brings its own
        if argument.startswith("--"):
            after_pages = argument.startswith("--pages=")
        elif after_pages:
            spread.append("--pages")
        spread.append(argument)
    return spread
