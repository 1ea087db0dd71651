"""Options that several commands share, and what their values become."""

import signal
from typing import Annotated

import typer

from coltrain.errors import UsageError

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


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; ours say what is needed."""
    import logging

    import datasets
    import transformers

    # peft imports it wherever it is installed, and it warns of a kernel that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
        device=chosen_device(device),
    )
