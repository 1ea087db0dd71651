"""`mine`: hard negatives by a model."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import (
    AllowPickleOption,
    BaseOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    NoKeyMappingOption,
    RevisionOption,
    TokensOption,
    chosen_data,
    quiet_libraries,
    retriever_for,
)
from coltrain.errors import UsageError


def mine(
    data: Annotated[str, typer.Argument(help="Data set: `tiny:train`, a folder, or a hub name.")],
    model: Annotated[str, typer.Option("--with", help="The model that ranks.")],
    out: Annotated[Path, typer.Option(help="Folder for the data with its negatives.")],
    top_k: Annotated[int, typer.Option(help="Pages of each ranking that are looked at.")] = 50,
    per_query: Annotated[int, typer.Option(help="Negatives that a query gets at most.")] = 10,
    max_share: Annotated[
        float, typer.Option(help="A page above this share of the positive's score is no negative.")
    ] = 0.95,
    near_duplicate: Annotated[
        float, typer.Option(help="A page this alike to the positive is a copy of it.")
    ] = 0.98,
    revision: RevisionOption = None,
    base: BaseOption = None,
    max_visual_tokens: TokensOption = None,
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find hard negatives with a model, and write the data set with them."""
    quiet_libraries()
    from coltrain.data.writing import write_collection
    from coltrain.evaluation.evaluate import refuse_without_judgements
    from coltrain.evaluation.mining import MiningSettings
    from coltrain.evaluation.mining import mine as find
    from coltrain.reproduction.mined import write_samples

    settings = MiningSettings(top_k, per_query, max_share, near_duplicate)
    _refuse_filled_folder(out)
    collection = chosen_data(data, "train")
    refuse_without_judgements(collection)
    retriever = retriever_for(
        model,
        revision,
        None,
        max_visual_tokens,
        dtype,
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
    )
    total = len(collection.page_ids) + len(collection.queries)
    with console.item_progress(f"encoding {collection.name}", total) as advance:
        mined = find(retriever, collection, settings, advance)
    try:
        write_collection(out, collection, mined.negatives)
        samples = write_samples(out, collection, mined, settings, model)
    except OSError as error:
        raise UsageError(
            "cannot-write",
            "the folder cannot be written.",
            where=str(out),
            received=error.strerror or str(error),
        ) from error
    num_negatives = sum(len(found) for found in mined.negatives.values())
    if as_json:
        console.print_json(
            {
                "out": str(out),
                "queries": len(mined.negatives),
                "negatives": num_negatives,
                "queries_found": mined.num_found,
                "skipped": mined.skipped,
                "advice": mined.advice(),
            }
        )
        return
    console.print_table(
        f"hard negatives of {collection.name}",
        ["", "number"],
        [
            ["queries", str(len(mined.negatives))],
            [f"queries with a relevant page among the first {top_k}", str(mined.num_found)],
            ["negatives", str(num_negatives)],
            *([reason, str(count)] for reason, count in mined.skipped.items()),
        ],
    )
    if (advice := mined.advice()) is not None:
        console.stderr().print(f"note: {advice}", soft_wrap=True)
    console.stderr().print(f"data: {out}, samples: {samples}", soft_wrap=True)


def _refuse_filled_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "folder-not-empty",
            "the output folder holds something already.",
            where=str(folder),
            expected="a new or empty folder",
        )
