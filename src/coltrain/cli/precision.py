"""`precision`: what of a model overflows float16, and what half precisions change."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coltrain import console
from coltrain.cli.options import (
    AllowPickleOption,
    BaseOption,
    DeviceOption,
    JsonOption,
    NoKeyMappingOption,
    RevisionOption,
    TokensOption,
    chosen_data,
    quiet_libraries,
    retriever_for,
)
from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.training.precision.drift import Drift
    from coltrain.training.precision.overflow import Overflow


def precision(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    on: Annotated[
        str, typer.Option("--on", help="Data set: `tiny`, a folder, or a hub name.")
    ] = "tiny",
    num_pages: Annotated[
        int, typer.Option("--pages", min=1, help="Pages to look at, evenly spread.")
    ] = 32,
    margin: Annotated[
        float, typer.Option(help="Share of 65,504 from which on a module counts as overflowing.")
    ] = 0.5,
    observe_in: Annotated[
        str, typer.Option(help="float32, or bfloat16 where float32 does not fit.")
    ] = "float32",
    no_drift: Annotated[
        bool, typer.Option("--no-drift", help="Do not encode everything in each precision.")
    ] = False,
    revision: RevisionOption = None,
    base: BaseOption = None,
    max_visual_tokens: TokensOption = None,
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the modules that overflow float16, the fewest to keep in float32, and the drift."""
    _refuse(margin, observe_in)
    quiet_libraries()
    from coltrain.evaluation.evaluate import refuse_without_judgements
    from coltrain.training.precision.drift import drifts, num_encoded, part_of
    from coltrain.training.precision.overflow import find_overflow
    from coltrain.training.precision.ranges import NUM_QUERIES, samples_of

    collection = chosen_data("tiny:test" if on == "tiny" else on, "test", "--on")
    refuse_without_judgements(collection)
    part = part_of(collection, num_pages)
    retriever = retriever_for(
        model,
        revision,
        None,
        max_visual_tokens,
        observe_in,
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
    )
    samples = list(samples_of(part, retriever.built.preparer, num_pages, NUM_QUERIES))
    with console.item_progress("looking for overflow", None) as advance:
        overflow = find_overflow(retriever.built.model, samples, margin, advance)
    found: list[Drift] = []
    if not no_drift:
        keep = list(overflow.keep_float32)
        with console.item_progress("encoding", num_encoded(part, keep)) as advance:
            found = drifts(retriever, part, keep, advance)
    looked_at = {
        "data": part.name,
        "pages": len(part.page_ids),
        "queries": len(part.queries),
        "observed_in": observe_in,
    }
    if as_json:
        console.print_json(_document(model, looked_at, overflow, found))
    else:
        _print(model, looked_at, overflow, found)


def _refuse(margin: float, observe_in: str) -> None:
    if not 0 < margin <= 1:
        raise UsageError(
            "not-a-margin",
            "the margin is a share of float16's largest number.",
            where="--margin",
            received=f"{margin:g}",
            expected="above 0, and at most 1",
        )
    if observe_in not in ("float32", "bfloat16"):
        raise UsageError(
            "unknown-dtype",
            "ranges are observed in a type that has room for them.",
            where="--observe-in",
            received=observe_in,
            expected="float32 or bfloat16",
        )


def _document(
    model: str, looked_at: dict[str, Any], overflow: "Overflow", found: "list[Drift]"
) -> dict[str, Any]:
    return {
        "model": model,
        "looked_at": looked_at,
        **overflow.facts(),
        "policy": {
            "precision": {"compute": "float16", "keep_float32": list(overflow.keep_float32)}
        },
        "drift": {
            one.precision: {
                "mean_cosine": one.mean_cosine,
                "least_cosine": one.least_cosine,
                "nDCG@5": one.ndcg,
                "nDCG@5_change": one.ndcg_change,
                "error": one.error,
            }
            for one in found
        },
    }


def _print(
    model: str, looked_at: dict[str, Any], overflow: "Overflow", found: "list[Drift]"
) -> None:
    near = overflow.near()
    of = f"{looked_at['pages']} pages and {looked_at['queries']} queries of {looked_at['data']}"
    if near:
        console.print_table(
            f"{model}: beyond {overflow.margin:g} x 65,504, on {of}",
            ["module", "|input|", "|output|", "|weight|"],
            [
                [name, f"{one.input:.4g}", f"{one.output:.4g}", f"{one.weight:.4g}"]
                for name, one in near.items()
            ],
        )
    else:
        largest = max(overflow.ranges, key=lambda name: overflow.ranges[name].largest)
        console.print_text(
            f"{model}: nothing beyond {overflow.margin:g} x 65,504 on {of}; the largest number is "
            f"{overflow.ranges[largest].largest:.4g}, in {largest}"
        )
    first = overflow.overflow_in_float16
    console.print_text(
        f"in float16 everything is finite{' all the same' if near else ''}"
        if first is None
        else f"in float16 the first that is not finite is {first}"
    )
    if overflow.keep_float32:
        console.print_table(
            "kept in float32",
            ["module", "because of"],
            [[name, reason] for name, reason in overflow.keep_float32.items()],
            is_text=True,
        )
    if found:
        console.print_table(
            f"drift from {looked_at['observed_in']}",
            ["precision", "mean cosine", "least cosine", "nDCG@5 x 100", "change"],
            [_drift_row(one) for one in found],
        )
        for one in found:
            if one.error is not None:
                console.print_text(f"{one.precision}: {one.error}")
    kept = "".join(f"\n    - {name}" for name in overflow.keep_float32) or " []"
    console.print_text(f"precision:\n  compute: float16\n  keep_float32:{kept}")


def _drift_row(one: "Drift") -> list[str]:
    if one.error is not None:
        return [one.precision, "not finite", "", "", ""]
    return [
        one.precision,
        f"{one.mean_cosine:.6f}",
        f"{one.least_cosine:.6f}",
        f"{100 * one.ndcg:.1f}",
        f"{100 * one.ndcg_change:+.1f}",
    ]
