"""Copies of tasks in a folder, and how to make them where the hub cannot be reached."""

from collections.abc import Sequence
from pathlib import Path

from coltrain.errors import DataError
from coltrain.evaluation.benchmarks.catalogue import Edition, Task
from coltrain.evaluation.benchmarks.files import needed_tables


def copy_of(task: Task, data_dir: Path, is_alone: bool) -> Path | None:
    """The folder of a task in a folder of tasks.

    It has one of the task's names. Where only one task is wanted, the folder itself may be it.

    Raises:
        DataError: `[data-not-found]` There is no such folder.
    """
    if not data_dir.is_dir():
        raise DataError(
            "data-not-found",
            "there is no such data folder." if not data_dir.exists() else "this is not a folder.",
            where="--data-dir",
            received=str(data_dir),
            expected="a folder with a folder for each task",
        )
    names = {name.casefold() for name in task.folder_names}
    for folder in sorted(data_dir.iterdir()):
        if folder.is_dir() and folder.name.casefold() in names:
            return folder
    if is_alone and next(data_dir.rglob("*.parquet"), None) is not None:
        return data_dir
    return None


def revision_of_copy(task: Task, folder: Path) -> tuple[Edition | None, str | None]:
    """The commit that `hf download --local-dir` noted in a folder, and the edition that has it.

    Returns:
        Nothing where the folder does not say.

    Raises:
        DataError: `[other-revision]` It says another commit than a pinned one.
    """
    notes = folder / ".cache" / "huggingface" / "download"
    commits = {
        lines[0]
        for file in sorted(notes.rglob("*.parquet.metadata"))
        if (lines := file.read_text(encoding="utf-8").splitlines())
    }
    if not commits:
        return None, None
    for edition in task.editions.values():
        if commits == {edition.revision}:
            return edition, edition.revision
    unpinned = [edition for edition in task.editions.values() if edition.revision is None]
    if unpinned and len(commits) == 1 and folder.name == unpinned[0].repository.split("/")[1]:
        return unpinned[0], commits.pop()
    pinned = [edition.source for edition in task.editions.values() if edition.revision]
    raise DataError(
        "other-revision",
        f"the copy of {task.name} is of another revision than the pinned one.",
        where=str(folder),
        received=", ".join(sorted(commits)),
        expected=" or ".join(pinned),
        suggestion="download it again with --revision, or measure on it as it is: --on "
        f"{folder if folder.is_absolute() else Path('.') / folder}",
    )


def refuse_unreachable(
    missing: Sequence[tuple[Task, Edition, DataError | None]], data_dir: Path | None
) -> None:
    """Say which tasks are not here, and how to fetch them elsewhere.

    Args:
        missing: Tasks, where they would come from, and why they did not.
        data_dir: The folder that was looked in; None for the hub.

    Raises:
        DataError: `[benchmark-unreachable]` There are any.
    """
    if not missing:
        return
    home = str(data_dir) if data_dir else "FOLDER"
    reasons = [error.received for _, _, error in missing if error and error.received]
    lines = [
        f"hf download {edition.repository} --repo-type dataset"
        + (f" --revision {edition.revision}" if edition.revision else "")
        + f" --local-dir {home}/{task.short}"
        for task, edition, _ in missing
    ]
    raise DataError(
        "benchmark-unreachable",
        f"{len(missing)} {'task is' if len(missing) == 1 else 'tasks are'} not on this machine"
        + ("." if data_dir else ", and the hub cannot be reached."),
        where=str(data_dir) if data_dir else "the hub and its cache",
        received=reasons[0]
        if reasons
        else f"no folder {missing[0][0].short}, nor one of its "
        f"other names ({', '.join(missing[0][0].folder_names)})",
        expected="\n".join(
            f"{task.name}: {' '.join(f'{t}/*.parquet' for t in _tables(task, edition))}"
            for task, edition, _ in missing
        ),
        suggestion="where there is a connection:\n"
        + "\n".join(lines)
        + f"\nthen copy the folder here and say --data-dir {home}",
    )


def _tables(task: Task, edition: Edition) -> list[str]:
    return needed_tables(task, edition.layout)
