"""What a run will hold in the host's memory, against what the host can give, before the first step.

Only what follows from the data's size is counted, as "at least": the model is loaded by then, and
what the passes over a chunk need shows in the first step. What does not fit here would be found out
hours later, by a process that the system kills without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coltrain.data.collection import Collection
from coltrain.errors import RunError
from coltrain.model.inputs import Preparer
from coltrain.training.setup import Setup

_SAMPLES = 8
"""Pages of a data set that are prepared to learn how many tokens one has."""

_AHEAD = 2
"""Chunks that a worker prepares ahead (torch's prefetch_factor)."""

_FLOAT32 = 4
_GIB = 2**30


@dataclass(frozen=True)
class Need:
    """One thing that stays in memory.

    Attributes:
        what: For a person.
        num_bytes: At least.
        lower: The key that makes it smaller, or another way to.
    """

    what: str
    num_bytes: int
    lower: str


def refuse_too_little_memory(setup: Setup, available: int | None = None) -> None:
    """Say that a run cannot fit, with the numbers.

    Args:
        setup: The run's.
        available: Bytes; None asks the system, and believes that all fits where it does not say.

    Raises:
        RunError: [host-memory] The run would need more than there is.
    """
    available = available_bytes() if available is None else available
    needs = needed(setup)
    total = sum(need.num_bytes for need in needs)
    if available is None or total <= available:
        return
    needs = sorted(needs, key=lambda need: -need.num_bytes)
    raise RunError(
        "host-memory",
        "the run would need more memory than this machine has left.",
        received=f"at least {_gib(total)}:\n"
        + "\n".join(f"{_gib(need.num_bytes):>10}  {need.what}" for need in needs),
        expected=f"at most {_gib(available)}, which is free now",
        suggestion=needs[0].lower,
    )


def needed(setup: Setup) -> list[Need]:
    """What a run will hold in the host's memory, from the sizes of its data."""
    recipe, preparer, dim = setup.recipe, setup.built.preparer, setup.built.model.dim
    evaluations = []
    for data in setup.eval_data:
        pages, queries = len(data.page_ids), len(data.queries)
        tokens = pages * mean_page(data, preparer).tokens + queries * _query_tokens(data, preparer)
        evaluations.append(
            Need(
                f"embeddings and scores of {data.name}: {pages} pages, {queries} queries",
                _FLOAT32 * (tokens * dim + pages * queries),
                f"a smaller model.max_visual_tokens, or fewer pages than those of {data.name}",
            )
        )
    page = mean_page(setup.collection, preparer)
    num_chunks = max(1, recipe.data.num_workers * _AHEAD)
    chunk_size = min(recipe.batch.chunk_size, recipe.batch.global_size)
    prepared = Need(
        f"pixels of {num_chunks} chunks of {chunk_size} pages, prepared ahead",
        num_chunks * chunk_size * page.pixel_bytes,
        "a smaller data.num_workers or batch.chunk_size",
    )
    # One data set is evaluated after the other, so the largest counts.
    needs = [*sorted(evaluations, key=lambda need: need.num_bytes)[-1:], prepared]
    return [*needs, _of_the_batch(setup, page)] if setup.device.type == "cpu" else needs


@dataclass(frozen=True)
class MeanPage:
    """The mean page of a data set."""

    tokens: int
    visual_tokens: int
    pixel_bytes: int


def mean_page(data: Collection, preparer: Preparer) -> MeanPage:
    """The mean over a few pages, spread over the data set."""
    stride = max(1, len(data.page_ids) // _SAMPLES)
    chosen = range(0, len(data.page_ids), stride)[:_SAMPLES]
    pages = [preparer.prepare_page(data.page_image(index)) for index in chosen]
    visual = [page.grid_height * page.grid_width // preparer.merge_size**2 for page in pages]
    mean_visual = sum(visual) // len(pages)
    return MeanPage(
        tokens=len(preparer.page_ids(mean_visual)),
        visual_tokens=mean_visual,
        pixel_bytes=sum(page.pixel_values.nbytes for page in pages) // len(pages),
    )


def _query_tokens(data: Collection, preparer: Preparer) -> int:
    queries = data.queries[:: max(1, len(data.queries) // _SAMPLES)][:_SAMPLES]
    return sum(len(preparer.query_ids(query.text)) for query in queries) // len(queries)


def _of_the_batch(setup: Setup, page: MeanPage) -> Need:
    """What gradient caching keeps of a global batch; on a GPU it lies there."""
    recipe, model = setup.recipe, setup.built.model
    per_query = recipe.hard_negatives.per_query if setup.uses_hard_negatives else 0
    num_pages = recipe.batch.global_size * (1 + per_query)
    embeddings = 2 * _FLOAT32 * page.tokens * model.dim  # and their gradients
    visual = page.visual_tokens * model.dtype.itemsize * model.custom_text_proj.in_features
    return Need(
        f"embeddings and visual tokens of a global batch of {recipe.batch.global_size}",
        num_pages * (embeddings + visual),
        "a smaller batch.global_size, which changes the result, or model.max_visual_tokens",
    )


def available_bytes() -> int | None:
    """Memory that processes can still take: the system's, and that of the control group.

    Returns:
        Bytes; None where neither is said, as outside of Linux.
    """
    said = [_of_the_system(), _of_the_group()]
    return min((number for number in said if number is not None), default=None)


def _of_the_system(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_the_group(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container or a job may still take; files in the page cache can be given back."""
    for limit, usage, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        words = [line for name in (limit, usage) for line in _lines(group / name)]
        if len(words) == 2 and all(word.isdecimal() for word in words):
            most, used = map(int, words)
            statistics = _statistics(group / Path(limit).parent / "memory.stat")
            return max(0, most - used + statistics.get(cached, 0))
    return None


def _statistics(file: Path) -> Mapping[str, int]:
    pairs = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _gib(number: int) -> str:
    return f"{number / _GIB:.2f} GiB" if number >= _GIB / 100 else f"{number / 2**20:.1f} MiB"
