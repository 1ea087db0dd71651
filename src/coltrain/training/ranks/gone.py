"""What a rank says that cannot go on because of another."""

from collections.abc import Sequence
from dataclasses import dataclass

from coltrain.errors import ColtrainError, RunError, TrainingError


@dataclass(frozen=True)
class Leaving:
    """What a rank said when it left.

    Attributes:
        text: Its error.
        exit_code: With which it ended.
        is_own: Whether it met the error itself, and did not only hear of another's.
    """

    text: str
    exit_code: int
    is_own: bool


@dataclass(frozen=True)
class Missing:
    """The rank that is gone: with its word, or without.

    Attributes:
        rank: Which; None where the store that all need is gone.
        leaving: Its word.
    """

    rank: int | None
    leaving: Leaving | None


def failed(rank: int, error: Exception) -> RunError | TrainingError:
    """Another rank met an error."""
    text = str(error) or type(error).__name__
    return _failed(rank, text, getattr(error, "exit_code", TrainingError.exit_code))


def error_of(missing: Missing | None, places: Sequence[str] = ()) -> ColtrainError:
    """Another rank left, or is gone without a word.

    Args:
        missing: Who; None where a connection broke and all seem alive.
        places: For each rank where it ran.
    """
    if missing is None:
        return TrainingError(
            "rank-lost",
            "the connection between the ranks broke, so none can go on.",
            received="all ranks seem alive",
            suggestion="look at the network between them, then coltrain resume RUN",
        )
    if missing.rank is None:
        return TrainingError(
            "rank-lost",
            "the process that the ranks meet at is gone, so none can go on.",
            received="no answer at MASTER_ADDR",
            suggestion=_GO_ON,
        )
    if missing.leaving is not None:
        return _failed(missing.rank, missing.leaving.text, missing.leaving.exit_code)
    return TrainingError(
        "rank-lost",
        f"rank {missing.rank} is gone, so none can go on.",
        where=places[missing.rank],
        received="no word of it: it was killed, ran out of memory, or its machine is away",
        suggestion=_GO_ON,
    )


_GO_ON = "coltrain resume RUN, with any number of ranks; run.json says after which step it goes on"


def _failed(rank: int, text: str, exit_code: int) -> RunError | TrainingError:
    """With the exit code of the error that the other rank met."""
    details = {
        "where": f"rank {rank}",
        "received": text,
        "suggestion": f"mend what rank {rank} met; what had been saved is kept",
    }
    if exit_code == RunError.exit_code:
        return RunError("rank-failed", f"rank {rank} cannot go on, so none can.", **details)
    return TrainingError("rank-failed", f"rank {rank} cannot go on, so none can.", **details)
