"""The command line: a function for each verb, which parses, calls and prints."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.errors import ColtrainError, UsageError

if TYPE_CHECKING:
    from coltrain.training.loop import Training

app = typer.Typer(
    name="coltrain",
    help="Train ColQwen2 on the GPU you have, evaluate it, and learn why the number differs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes = typer.Typer(
    help="List, show and compare recipes.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(recipes, name="recipes")

JsonLinesOption = Annotated[
    bool, typer.Option("--json-lines", help="Print each event as a line of JSON on stdout.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, …; the first GPU where there is one.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16: type of the weights; default as trained."),
]
StopSignalOption = Annotated[
    str | None,
    typer.Option(
        help="A further signal to save and leave at, such as SIGUSR1 from SLURM's --signal."
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Revision of a hub model.")]
TokensOption = Annotated[
    int | None, typer.Option(min=4, help="Visual tokens that a page may have at most.")
]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; new or empty.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete an earlier run in that folder.")
    ] = False,
    device: DeviceOption = None,
    stop_signal: StopSignalOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Train by a recipe: evaluate, train, evaluate, and leave a run folder."""
    if out is None:
        raise UsageError("missing-out", "say where the run goes.", expected="--out FOLDER")
    _refuse_both(as_json, as_lines)
    results = _train(recipe, overrides or [], out, replace, device, stop_signal, as_lines)
    if not as_lines:
        _print_run(results, out, as_json)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was killed or stopped.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes that move no result."),
    ] = None,
    device: DeviceOption = None,
    stop_signal: StopSignalOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Go on with a run from its newest whole checkpoint, to the same bits."""
    _refuse_both(as_json, as_lines)
    _quiet()
    from coltrain.evaluation.results import read_results
    from coltrain.training.resume import resume as prepare

    prepared = prepare(run, _device(device), overrides or [], _stop_signals(stop_signal))
    for word in prepared.words:
        console.stderr().print(word, soft_wrap=True)
    if prepared.training is not None:
        _follow(prepared.training, run, as_lines)
    final = run / "evaluation" / "final.json"
    if not as_lines:
        _print_run(read_results(final) if final.is_file() else [], run, as_json)


def _refuse_both(as_json: bool, as_lines: bool) -> None:
    if as_json and as_lines:
        raise UsageError(
            "json-twice",
            "stdout holds one document or a line for each event, not both.",
            received="--json and --json-lines",
            expected="one of them",
        )


def _print_run(results: list, out: Path, as_json: bool) -> None:
    """The final results of a run."""
    if as_json:
        from coltrain.evaluation.results import results_to_json

        console.print_json(results_to_json(results, run=str(out)))
    elif results:
        console.print_results(results)
    console.stderr().print(f"run: {out}", soft_wrap=True)


def _train(
    recipe: str,
    overrides: list[str],
    out: Path,
    replace: bool,
    device: str | None,
    stop_signal: str | None = None,
    as_lines: bool = False,
) -> list:
    """Train and return the final results, one for each data set."""
    from coltrain.recipe import load_recipe

    resolved = load_recipe(recipe, overrides)
    _quiet()
    from coltrain.training.loop import Training

    with console.item_progress("checking pages", None) as advance:
        training = Training(
            resolved,
            out,
            _device(device),
            replace=replace,
            stop_signals=_stop_signals(stop_signal),
            on_page=advance,
        )
    return _follow(training, out, as_lines)


def _follow(training: "Training", out: Path, as_lines: bool = False) -> list:
    """Show a run while it happens; returns the results of its last evaluation.

    Raises:
        typer.Exit: The run was asked to stop.
    """
    from coltrain.reproduction.report import write_report
    from coltrain.training.events import EvaluationResult, EvaluationStarts, Stopped, event_line

    final = []
    stopped = None
    with console.TrainingView(training.recipe.logging.every) as view:
        training.on_item = view.advance_item
        for event in training.events():
            view.show(event)
            if as_lines:
                console.print_json_line(event_line(event))
            if isinstance(event, EvaluationStarts):
                final = []  # the last evaluation is the one that counts
            elif isinstance(event, EvaluationResult):
                final.append(event.result)
            elif isinstance(event, Stopped):
                stopped = event
    write_report(out)
    if stopped is not None:
        console.stderr().print(f"go on with: coltrain resume {out}", soft_wrap=True)
        raise typer.Exit(128 + signal.Signals[stopped.signal_name])
    return final


@app.command(name="eval")
def evaluate_model(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    on: Annotated[
        list[str],
        typer.Option("--on", help="Data set: `tiny`, a folder, or a hub name; may be repeated."),
    ],
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
    _quiet()
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
    retriever = _retriever(model, revision, template, max_visual_tokens, dtype, device)
    results = []
    for collection in collections:
        total = len(collection.page_ids) + len(collection.queries)
        with console.item_progress(f"encoding {collection.name}", total) as advance:
            results.append(evaluate(retriever, collection, advance).result)
    if as_json:
        console.print_json(results_to_json(results, model=model))
    else:
        console.print_results(results)


@app.command()
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
    _quiet()
    from coltrain.evaluation.export import encode_to_file, read_pages, read_queries

    images = read_pages(pages or [])
    texts = read_queries(queries) if queries is not None else []
    retriever = _retriever(model, revision, template, max_visual_tokens, dtype, device)
    with console.item_progress("encoding", len(images) + len(texts)) as advance:
        encode_to_file(retriever, images, texts, out, advance)
    console.stderr().print(f"{len(images)} pages, {len(texts)} queries: {out}", soft_wrap=True)


@app.command()
def verify(
    run: Annotated[Path | None, typer.Argument(help="A run whose first steps are redone.")] = None,
    check_self: Annotated[
        bool, typer.Option("--self", help="Check coltrain itself on this machine.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the run to redo.")] = 3,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that training is exact (--self), or that a run's first steps come out again."""
    if check_self == (run is not None):
        raise UsageError(
            "nothing-to-verify",
            "say what to verify.",
            expected="coltrain verify --self, or coltrain verify RUN",
        )
    _quiet()
    if run is not None:
        _verify_run(run, steps, device, as_json)
    else:
        _verify_self(as_json)


def _verify_run(run: Path, steps: int, device: str | None, as_json: bool) -> None:
    """Redo the first steps of a run and say whether they are equal.

    Raises:
        typer.Exit: They differ.
    """
    from coltrain.training.verify_run import verify_run

    with console.item_progress("redoing steps", steps) as advance:
        found = verify_run(run, _device(device), steps, lambda step: advance())
    if as_json:
        console.print_json(found.as_document())
    else:
        console.print_text(f"{found.verdict}, {found.steps} steps")
        if found.first_difference is not None:
            console.print_text(f"first: {found.first_difference}")
    if found.verdict == "different":
        raise typer.Exit(1)


def _verify_self(as_json: bool) -> None:
    """Check the step on this machine.

    Raises:
        typer.Exit: It is not exact.
    """
    from coltrain.training.self_check import TOLERANCE, self_check

    with console.counted_progress("checking") as update:
        found = self_check(update)
    if as_json:
        console.print_json(found.as_document())
    else:
        console.print_table(
            f"gradient caching against plain autograd, float64; allowed {TOLERANCE:.0e}",
            ["loss", "dropout", "chunk", "loss differs by", "gradient differs by", "vision runs"],
            [
                [
                    one.loss,
                    f"{one.dropout:g}",
                    str(one.chunk_size),
                    f"{one.loss_difference:.1e}",
                    f"{one.gradient_difference:.1e}",
                    f"{one.vision_forwards_per_page:g}",
                ]
                for one in found.comparisons
            ],
        )
        console.print_table(
            "memory of a step in chunks of one",
            ["global batch", "peak MiB", "largest tensor", "all-pairs tensor"],
            [
                [
                    str(one.global_batch),
                    f"{one.peak_bytes / 2**20:.1f}",
                    f"{one.largest_elements:,}",
                    f"{one.all_pairs_elements:,}",
                ]
                for one in found.memory
            ],
        )
        verdict = "exact" if found.passed else "NOT EXACT"
        console.print_text(f"{verdict}: largest difference {found.largest_difference:.1e}")
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the run.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the shipped tiny base on drawn pages, on a CPU, in a minute or two."""
    results = _train("tiny", [f"train.seed={seed}"], out, True, "cpu")
    _quiet()
    from coltrain.reproduction.demo import demo_summary

    summary = demo_summary(out)
    if as_json:
        console.print_json({**summary, "run": str(out)})
        return
    facts = summary["test"]
    console.print_results(results)
    console.print_table(
        "nDCG@5 on unseen pages",
        ["", "nDCG@5"],
        [[name, f"{value:.3f}"] for name, value in summary["nDCG@5"].items()],
    )
    console.print_text(
        f"{facts['num_pages']} pages of at least {facts['fewest_words']} words; "
        f"{facts['pages_sharing_training_text']} share six words in a row with training text; "
        f"queries of {facts['query_lengths'][0]} to {facts['query_lengths'][1]} words, "
        f"{facts['queries_on_several_pages']} of them on more than one page."
    )
    console.stderr().print(f"run: {out}, report: {out / 'report.html'}", soft_wrap=True)


@app.command()
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
    max_visual_tokens: TokensOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find hard negatives with a model, and write the data set with them."""
    _quiet()
    from coltrain.data.sources import load_collection
    from coltrain.data.writing import write_collection
    from coltrain.evaluation.mining import MiningSettings
    from coltrain.evaluation.mining import mine as find
    from coltrain.recipe import Source
    from coltrain.reproduction.mined import write_samples

    settings = MiningSettings(top_k, per_query, max_share, near_duplicate)
    _refuse_filled_folder(out)
    collection = load_collection(Source.model_validate(data), "train")
    retriever = _retriever(model, revision, None, max_visual_tokens, dtype, device)
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
                "skipped": mined.skipped,
            }
        )
        return
    console.print_table(
        f"hard negatives of {collection.name}",
        ["", "number"],
        [
            ["queries", str(len(mined.negatives))],
            ["negatives", str(num_negatives)],
            *([reason, str(count)] for reason, count in mined.skipped.items()),
        ],
    )
    console.stderr().print(f"data: {out}, samples: {samples}", soft_wrap=True)


def _refuse_filled_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "folder-not-empty",
            "the output folder holds something already.",
            where=str(folder),
            expected="a new or empty folder",
        )


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run, also one that is going on or was killed.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the report as Markdown on stdout.")
    ] = False,
) -> None:
    """Write report.html (and report.md) into a run: one page, nothing loaded from elsewhere."""
    from coltrain.reproduction.report import report_markdown, write_report

    path = write_report(run)
    if markdown:
        console.print_text(report_markdown(run))
    else:
        console.print_text(str(path))


@recipes.command(name="list")
def recipes_list(as_json: JsonOption = False) -> None:
    """The recipes that ship with coltrain."""
    from coltrain.recipe import list_rows

    rows = list_rows()
    if as_json:
        console.print_json({"recipes": rows})
        return
    console.print_table(
        "shipped recipes",
        ["recipe", "base", "loss", "batch", "length", "learning rate", "compute"],
        [
            [
                row["recipe"],
                row["base"],
                row["loss"],
                str(row["global_batch_size"]),
                f"{row['epochs']:g} epochs" if row["epochs"] else f"{row['steps']} steps",
                f"{row['learning_rate']:g}",
                row["compute"],
            ]
            for row in rows
        ],
    )


@recipes.command(name="show")
def recipes_show(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """A recipe as YAML that is itself a recipe, each value with its source."""
    from coltrain.recipe import as_mapping, full_hash, load_recipe, result_hash, show_text

    if as_json:
        resolved = load_recipe(recipe, overrides or [])
        hashes = {"result_hash": result_hash(resolved), "full_hash": full_hash(resolved)}
        console.print_json({"recipe": as_mapping(resolved), **hashes})
    else:
        console.print_text(show_text(recipe, overrides or []))


@recipes.command(name="diff")
def recipes_diff(left: str, right: str, as_json: JsonOption = False) -> None:
    """Where two recipes differ, what can change the result first."""
    from coltrain.recipe import difference_rows

    rows = difference_rows(left, right)
    if as_json:
        console.print_json({"differences": rows})
    elif not rows:
        console.print_text("no difference")
    else:
        console.print_table(
            "differences",
            ["key", left, right, "moves the result"],
            [
                [
                    row["key"],
                    str(row["left"]),
                    str(row["right"]),
                    "yes" if row["affects_result"] else "no",
                ]
                for row in rows
            ],
        )


def _retriever(
    model: str,
    revision: str | None,
    template: str | None,
    max_visual_tokens: int | None,
    dtype: str | None,
    device: str | None,
):
    """Load a model for a command."""
    from coltrain.model.build import DTYPES
    from coltrain.model.retriever import load

    if dtype is not None and dtype not in DTYPES:
        raise UsageError(
            "unknown-dtype",
            "there is no such type of weights.",
            where="--dtype",
            received=dtype,
            expected=", ".join(DTYPES),
        )
    return load(
        model,
        revision=revision,
        template=template,
        max_visual_tokens=max_visual_tokens,
        dtype=DTYPES[dtype] if dtype else None,
        device=_device(device),
    )


def _stop_signals(name: str | None) -> list[signal.Signals]:
    """SIGINT, SIGTERM and the one that the user names.

    Raises:
        UsageError: There is no such signal.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if name is not None:
        try:
            if name in ("SIGKILL", "SIGSTOP"):
                raise KeyError("no process can hear these")
            signals.append(signal.Signals[name])
        except KeyError as error:
            raise UsageError(
                "unknown-signal",
                "there is no such signal, or no process can hear it.",
                where="--stop-signal",
                received=name,
                expected="a name such as SIGUSR1",
            ) from error
    return signals


def _device(name: str | None):
    """The device to compute on.

    Raises:
        UsageError: There is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            "unknown-device", "this names no device.", received=name, expected="cpu, cuda, cuda:1"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            "no-such-device",
            "this machine has no such GPU, or torch cannot use it.",
            received=name,
            expected=f"cpu, or one of {torch.cuda.device_count()} GPUs",
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            "unknown-device",
            "coltrain does not compute on such a device.",
            received=name,
            expected="cpu, cuda, cuda:1",
        )
    return device


def _quiet() -> None:
    """Keep the libraries' own bars and advice off the terminal; ours say what is needed."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _spread_pages(arguments: list[str]) -> list[str]:
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


def main() -> None:
    """Run a command; one clear error and its exit code where one goes wrong."""
    # Before torch is loaded: its threads must sleep, not spin, while they wait for one another. On
    # two cores with other work beside, spinning made a step of the tiny model 5 to 10 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["encode"]:
            arguments = _spread_pages(arguments)
        app(args=arguments)
    except ColtrainError as error:
        console.print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print_error(KeyboardInterrupt("stopped"))
        sys.exit(130)


if __name__ == "__main__":
    main()
