"""`eval` and `encode`: what a model makes of pages and queries."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import (
    AllowPickleOption,
    AlphaOption,
    BaseOption,
    DeviceOption,
    DtypeOption,
    ImageBackendOption,
    JsonOption,
    NoKeyMappingOption,
    OtherTemplateOption,
    PositionsOption,
    RevisionOption,
    TemplateOption,
    TokensOption,
    quiet_libraries,
    retriever_for,
)
from coltrain.errors import UsageError


def evaluate_model(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    on: Annotated[
        list[str],
        typer.Option("--on", help="Data set: `tiny`, a folder, or a hub name; may be repeated."),
    ],
    revision: RevisionOption = None,
    base: BaseOption = None,
    max_visual_tokens: TokensOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank every page of a data set for every query, and measure."""
    quiet_libraries()
    from coltrain.data.sources import load_collection
    from coltrain.evaluation.evaluate import evaluate
    from coltrain.evaluation.results import results_to_json
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
    retriever = retriever_for(
        model,
        revision,
        template,
        max_visual_tokens,
        dtype,
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
    )
    results = []
    for collection in collections:
        total = len(collection.page_ids) + len(collection.queries)
        with console.item_progress(f"encoding {collection.name}", total) as advance:
            results.append(evaluate(retriever, collection, advance).result)
    if as_json:
        console.print_json(results_to_json(results, model=model))
    else:
        console.print_results(results)


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
    base: BaseOption = None,
    max_visual_tokens: TokensOption = None,
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    template: TemplateOption = None,
    other_template: OtherTemplateOption = False,
    positions: PositionsOption = "mrope",
    image_backend: ImageBackendOption = "pil",
    alpha: AlphaOption = "drop",
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Write embeddings with token ids, positions and settings: docs/reference/embeddings-file.md."""
    if not pages and queries is None:
        raise UsageError(
            "nothing-to-encode", "there is nothing to encode.", expected="--pages or --queries"
        )
    quiet_libraries()
    from coltrain.evaluation.export import encode_to_file, read_pages, read_queries

    images = read_pages(pages or [], alpha)
    texts = read_queries(queries) if queries is not None else []
    retriever = retriever_for(
        model,
        revision,
        template,
        max_visual_tokens,
        dtype,
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
        other_template=other_template,
        positions=positions,
        image_backend=image_backend,
        alpha=alpha,
    )
    with console.item_progress("encoding", len(images) + len(texts)) as advance:
        encode_to_file(retriever, images, texts, out, advance, model=model)
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
