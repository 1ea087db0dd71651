"""`export`: a model in the form of another library."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, RevisionOption, TokensOption, quiet_libraries
from coltrain.errors import RunError, UsageError

if TYPE_CHECKING:
    from coltrain.model.export.model_card import Training

MEASURE = "nDCG@5"


def export(
    model: Annotated[
        str, typer.Argument(help="A run, a model folder, or a published model by folder or name.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="coltrain, colpali-engine, transformers or sentence-transformers."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; new or empty.")] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Base and adapter as one network; the last two always get that."
        ),
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="HUB_NAME", help="Upload the folder to the hub.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16: type of what is written; as trained."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base of an adapter, in place of the one that it names.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    max_visual_tokens: TokensOption = None,
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model so that another library gives the same embeddings, with a model card."""
    if out is None:
        raise UsageError("missing-out", "say where the model goes.", expected="--out FOLDER")
    quiet_libraries()
    from coltrain.model.build import DTYPES
    from coltrain.model.export import export_model
    from coltrain.model.export.exporting import refuse_full, refuse_target
    from coltrain.model.export.model_card import write_model_card
    from coltrain.model.export.publish import publish, refuse_without_token

    refuse_target(to)
    refuse_full(out)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(
            "unknown-dtype",
            "there is no such type of weights.",
            where="--dtype",
            received=dtype,
            expected=", ".join(DTYPES),
        )
    if push is not None:
        refuse_without_token(push)
    training = _training_of(Path(model).expanduser())
    console.stderr().print(f"exporting {model}, and reading it back …", soft_wrap=True)
    exported, built = export_model(
        model,
        to,
        out,
        merge=merge,
        dtype=DTYPES[dtype] if dtype else None,
        base=base,
        revision=revision,
        template=template,
        max_visual_tokens=max_visual_tokens,
    )
    title = push or out.resolve().name
    write_model_card(exported, built, title, training, push or str(out))
    pushed = publish(exported, push) if push is not None else None
    if as_json:
        native = exported.native
        console.print_json(
            {
                "target": exported.target,
                "out": str(out),
                "merged": exported.merged,
                "dtype": exported.dtype,
                "template": built.preparer.template.name,
                "largest_difference": exported.difference,
                "native": None if native is None else vars(native),
                "notes": list(exported.notes),
                "pushed": pushed,
            }
        )
        return
    console.print_table(
        f"{model} for {exported.target}",
        ["", ""],
        [
            ["form", "one network" if exported.merged else "adapter"],
            ["type", exported.dtype],
            ["template", built.preparer.template.name],
            ["largest difference of a probe", f"{exported.difference:.1e}"],
            *([["pushed", pushed]] if pushed else []),
        ],
    )
    for note in exported.notes:
        console.print_text(f"- {note}")
    console.stderr().print(f"written: {out}", soft_wrap=True)


def _training_of(folder: Path) -> "Training | None":
    """What a run says of its model's training; None where the model is no run.

    Raises:
        RunError: The run has not finished, so that it has no model yet.
    """
    from coltrain.evaluation.results import read_results
    from coltrain.evaluation.statistics import mean_interval
    from coltrain.model.export.model_card import Score, Training
    from coltrain.training.checkpoint import checkpoints
    from coltrain.training.run_folder import RunFolder, is_run

    if not is_run(folder):
        folder = folder.parent
        if folder.name == "" or not is_run(folder) or not (folder / "model").is_dir():
            return None
    run = RunFolder(folder)
    if run.facts.get("state") != "finished" or not run.model.is_dir():
        saved = [path.name for path in checkpoints(run.checkpoints)]
        raise RunError(
            "run-not-finished",
            "the run has no finished model.",
            where=str(folder),
            received=f"state {run.facts.get('state')}, "
            + (f"newest checkpoint {saved[-1]}" if saved else "no checkpoint"),
            expected="a run that ended by itself",
            suggestion=f"coltrain resume {folder}",
        )
    final = folder / "evaluation" / "final.json"
    scores = []
    for result in read_results(final) if final.is_file() else []:
        values = [measures[MEASURE] for measures in result.per_query.values()]
        if values:
            interval = mean_interval(values)
            scores.append(
                Score(
                    result.dataset,
                    result.num_queries,
                    result.num_pages,
                    interval.mean,
                    interval.low,
                    interval.high,
                )
            )
    step = run.facts.get("plan", {}).get("num_steps")
    return Training(run.facts["recipe_yaml"], step, MEASURE, scores)
