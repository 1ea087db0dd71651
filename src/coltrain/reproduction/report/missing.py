"""What of a run's folder is not there, and what the report cannot say without it."""

from collections.abc import Iterator

from coltrain.reproduction.report.reading import RunRecord
from coltrain.training.run_folder import ROW_CONTENTS

_FILES = {
    "metrics.jsonl": "curves, speed, and what the batches were made of",
    "data_check.json": "which rows were left out",
    ROW_CONTENTS: "which rows the data had, for `coltrain compare`",
    "fingerprints.json": "the bits of the first steps, for `coltrain verify`",
}
_KEYS = {
    "recipe_yaml": "the recipe",
    "versions": "the versions that computed",
    "data": "fingerprints of the data",
    "moments": "the types of the optimiser's moments",
    "kernels": "kernels and threads",
    "trained_weights_hash": "the weights before the first step",
}


def missing_of(record: RunRecord) -> tuple[str, ...]:
    """One sentence for each file and record that a whole run of this version has."""
    return tuple(_missing(record))


def _missing(record: RunRecord) -> Iterator[str]:
    for name, what in _FILES.items():
        if not (record.folder / name).is_file():
            yield f"{name} is not there: {what}."
    for key, what in _KEYS.items():
        if record.fact(key) is None and (key != "moments" or record.is_complete):
            yield f"run.json has no {key}: {what}."
    if record.fact("recipe.eval.data") and record.before is None:
        yield "evaluation/before.json is not there: scores before training."
    if record.is_complete:
        final = record.folder / "evaluation" / "final.json"
        if record.fact("recipe.eval.data") and not final.is_file():
            yield "evaluation/final.json is not there: scores after training."
        if not (record.folder / "model").is_dir():
            yield "model/ is not there: the trained model."
