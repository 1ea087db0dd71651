"""What a run cost: time, memory, machine, and energy where somebody measured it."""

from collections.abc import Iterator

from coltrain.reproduction.report import figures
from coltrain.reproduction.report.ledger import Presented
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_NOT_RECORDED = "not recorded"


def cost_of(record: RunRecord, presented: Presented) -> Table:
    """Cost as pairs, with what was not recorded said as such."""
    return Table(("", ""), tuple(_rows(record, presented)), "What it cost", text_columns=(0, 1))


def _rows(record: RunRecord, presented: Presented) -> Iterator[tuple[str, str]]:
    seconds = record.fact("seconds")
    training = sum(line.get("seconds") or 0 for line in record.steps)
    evaluating = sum(line.get("seconds") or 0 for line in record.evaluations)
    yield "time in all", figures.duration(seconds) if seconds else _NOT_RECORDED
    yield "time of training steps", figures.duration(training)
    yield "time of evaluations", figures.duration(evaluating)
    pages = presented.pages(record.step)
    if training and pages:
        yield "time per 1,000 pages trained on", figures.duration(1000 * training / pages)
    ranks = record.num_ranks
    name = str(record.fact("device.name", _NOT_RECORDED))
    yield "device", f"{ranks} × {name}" if ranks != 1 else name
    if seconds and record.fact("device.type") == "cuda":
        yield "GPU hours", figures.significant(ranks * seconds / 3600, 3)
    peak = record.fact("peak_memory_gib")
    if peak is not None:
        yield "peak GPU memory", f"{peak} GiB"
    elif record.fact("device.type") == "cuda":
        yield "peak GPU memory", _NOT_RECORDED
    yield "energy", _energy(record, ranks)


def _energy(record: RunRecord, ranks: int) -> str:
    energy = record.fact("energy_kwh")
    if energy is None:
        why = record.fact("energy_unknown")
        return f"not known: {why}" if why else _NOT_RECORDED
    of = f" of the first of {ranks} GPUs" if ranks != 1 else " of the GPU alone"
    return f"{figures.significant(energy, 3)} kWh{of}"
