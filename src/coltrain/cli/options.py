"""Options that several commands share, and what their values become."""

import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.data.collection import Collection

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
ConnectOption = Annotated[
    float | None,
    typer.Option(
        min=1, help="Of several ranks: how long each looks for the place where they meet; 60."
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Revision of a hub model.")]
BaseOption = Annotated[
    str | None,
    typer.Option(help="Folder or hub name of an adapter's base, for the one that it names."),
]
NoKeyMappingOption = Annotated[
    bool,
    typer.Option(
        "--no-key-mapping", help="Refuse files whose tensors are not named as ColQwen2 names them."
    ),
]
AllowPickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read .bin weights, as tensors alone, where there are no safetensors.",
    ),
]
TokensOption = Annotated[
    int | None, typer.Option(min=4, help="Visual tokens that a page may have at most.")
]
TemplateOption = Annotated[
    str | None,
    typer.Option(help="Template by name, for a model that does not say its own; or see the next."),
]
OtherTemplateOption = Annotated[
    bool,
    typer.Option(
        "--other-template", help="Read a model with --template though it was trained with another."
    ),
]
PositionsOption = Annotated[
    Literal["mrope", "sequential"],
    typer.Option(help="How tokens are numbered; sequential as transformers' native ColQwen2."),
]
ImageBackendOption = Annotated[
    Literal["pil", "torchvision"],
    typer.Option(help="What resizes pages; torchvision as colpali-engine where it is installed."),
]
AlphaOption = Annotated[
    Literal["drop", "white"],
    typer.Option(help="What becomes of a page's transparency; white as transformers 5."),
]


def refuse_both(as_json: bool, as_lines: bool) -> None:
    if as_json and as_lines:
        raise UsageError(
            "json-twice",
            "stdout holds one document or a line for each event, not both.",
            received="--json and --json-lines",
            expected="one of them",
        )


def stop_signals(name: str | None) -> list[signal.Signals]:
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


def chosen_device(name: str | None):
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


def chosen_data(name: str, split: str, where: str | None = None) -> "Collection":
    """A data set by one word: drawn pages, a folder, or a hub name.

    Args:
        name: As typed.
        split: The one that is meant where none is named.
        where: The option, for the error.

    Raises:
        UsageError: It cannot name a data set.
    """
    from coltrain.data.sources import load_collection
    from coltrain.recipe import Source

    try:
        source = Source.model_validate(name)
    except ValueError as error:
        raise UsageError(
            "not-a-source",
            "this cannot name a data set.",
            where=where,
            received=repr(name),
            expected="`tiny:train`, a folder, a hub name, or name@revision",
        ) from error
    return load_collection(source, split)


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; ours say what is needed."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def retriever_for(
    model: str,
    revision: str | None,
    template: str | None,
    max_visual_tokens: int | None,
    dtype: str | None,
    device: str | None,
    *,
    base: str | None = None,
    key_mapping: bool = True,
    allow_pickle: bool = False,
    other_template: bool = False,
    positions: str = "mrope",
    image_backend: str = "pil",
    alpha: str = "drop",
):
    """Load a model for a command.

    Raises:
        UsageError: There is no such type of weights; `--other-template` without a template.
    """
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
    if other_template and template is None:
        raise UsageError(
            "other-template-without-name",
            "--other-template says that another template is meant, and none is named.",
            received="--other-template",
            expected="--template NAME --other-template",
        )
    return load(
        model,
        revision=revision,
        template=template,
        max_visual_tokens=max_visual_tokens,
        dtype=DTYPES[dtype] if dtype else None,
        device=chosen_device(device),
        base=base,
        key_mapping=key_mapping,
        allow_pickle=allow_pickle,
        other_template=other_template,
        positions=positions,
        image_backend=image_backend,
        alpha=alpha,
    )
