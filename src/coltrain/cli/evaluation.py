"""`eval` and `encode`: what a model makes of pages and queries."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from coltrain import console
from coltrain.cli.evaluation_data import Choice, named_data
from coltrain.cli.evaluation_means import means_of, print_means, versions
from coltrain.cli.evaluation_outputs import (
    TOP_IN_JSON,
    Evaluated,
    Outputs,
    print_noise,
    tell_what_happened,
)
from coltrain.cli.mteb_evaluation import (
    name_for_mteb,
    refuse_no_tasks,
    refuse_other_options,
    through_mteb,
)
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
        typer.Option(
            "--on",
            help="A benchmark or task (`benchmarks list`), `tiny`, a folder, or a hub name; may be "
            "repeated.",
        ),
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
    protocol: Annotated[
        str | None,
        typer.Option(help="Follow an evaluator, as in mteb-2.19.2: text, type, padding, data."),
    ] = None,
    edition: Annotated[
        str | None, typer.Option(help="Of a benchmark's data: mteb, beir or qa.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with a folder for each task, instead of the hub.")
    ] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(help="Pages of a query in several rows: all-pages or last-row are relevant."),
    ] = None,
    allow_other_counts: Annotated[
        bool, typer.Option("--allow-other-counts", help="Take a task's data whatever their size.")
    ] = False,
    mteb: Annotated[
        bool, typer.Option("--mteb", help="Let mteb itself load, search and measure tasks.")
    ] = False,
    mteb_results: Annotated[
        Path | None, typer.Option(help="Folder for mteb's result files, for its leaderboard.")
    ] = None,
    mteb_name: Annotated[
        str | None, typer.Option(help="organisation/name of the model in these files.")
    ] = None,
    revision: RevisionOption = None,
    base: BaseOption = None,
    max_visual_tokens: TokensOption = None,
    template: TemplateOption = None,
    other_template: OtherTemplateOption = False,
    positions: PositionsOption = "mrope",
    image_backend: ImageBackendOption = "pil",
    alpha: AlphaOption = "drop",
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank every page of a data set for every query, and measure."""
    quiet_libraries()
    from coltrain.evaluation.benchmarks.scores import task_result
    from coltrain.evaluation.encoding import is_padded
    from coltrain.evaluation.evaluate import evaluate, with_intervals
    from coltrain.evaluation.identity import encoder_identity
    from coltrain.evaluation.mteb_model import require_mteb
    from coltrain.evaluation.noise import noise_floor, variations
    from coltrain.evaluation.protocols.following import (
        record_of,
        refuse_contradictions,
        under_protocol,
        warning_of,
    )
    from coltrain.evaluation.protocols.protocol import DEFAULT, protocol_named
    from coltrain.evaluation.results import results_to_json
    from coltrain.evaluation.scoring import Scoring
    from coltrain.evaluation.store import EmbeddingStore

    followed = DEFAULT if protocol is None else protocol_named(protocol)
    refuse_contradictions(followed, template, dtype, padding)
    if mteb or mteb_results or mteb_name:
        refuse_other_options(
            {
                "--out": out is not None,
                "--ranking": ranking is not None,
                "--html": html is not None,
                "--top-k": top_k is not None,
                "--noise": noise,
                "--mteb-results without --mteb": mteb_results is not None and not mteb,
                "--mteb-name without --mteb": mteb_name is not None and not mteb,
            }
        )
    choice = Choice(edition, data_dir, duplicates, allow_other_counts)
    wanted, whole = named_data(on, choice, followed.edition, followed.duplicates)
    if mteb:
        refuse_no_tasks(wanted)
        require_mteb()
    collections = [one.collection for one in wanted]
    outputs = Outputs(out, ranking, html, top_k)
    outputs.prepare(collections)
    own = retriever_for(
        model,
        revision,
        template,
        max_visual_tokens,
        dtype or ("bfloat16" if followed.score_dtype == "bfloat16" else None),
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
        other_template=other_template,
        positions=positions,
        image_backend=image_backend,
        alpha=alpha,
    )
    retriever = under_protocol(own, followed)
    scoring = followed.scoring if followed != DEFAULT else Scoring(padding=padding)
    texts = [query.text for collection in collections for query in collection.queries]
    record = record_of(followed, own, retriever, texts)
    if (warning := warning_of(record)) is not None:
        console.stderr().print(f"warning: {warning}", soft_wrap=True)
    identity = encoder_identity(retriever, is_padded(retriever, batch_size))
    document = {
        "model": model,
        "encoder": identity,
        "scoring": asdict(scoring),
        "protocol": record,
        "versions": versions(),
    }
    if mteb:
        results, version = through_mteb(
            retriever,
            wanted,
            name=name_for_mteb(model, mteb_name),
            revision=revision,
            scoring=scoring,
            cache=cache,
            results_dir=mteb_results,
        )
        means = means_of(whole, results)
        document |= {"evaluator": f"mteb {version}"} | ({"means": means} if means else {})
        results = [with_intervals(result) for result in results]
        if as_json:
            console.print_json(results_to_json(results, **document))
            return
        console.print_results(results)
        print_means(means)
        return
    outputs.refuse_other(document, collections)
    folder = cache or (None if out is None else out / "embeddings")
    evaluated = []
    for one in wanted:
        collection = one.collection
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
        result = evaluation.result if one.task is None else task_result(one.task, evaluation.result)
        evaluation = replace(evaluation, result=with_intervals(result))
        evaluated.append(Evaluated(collection, evaluation, floors))
        tell_what_happened(evaluated[-1], store)
    results = [one.evaluation.result for one in evaluated]
    means = means_of(whole, results)
    if means:
        document["means"] = means
    document = outputs.write(retriever, evaluated, document)
    if as_json:
        console.print_json(document)
        return
    console.print_results(results)
    print_means(means)
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
