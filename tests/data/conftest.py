"""Small data sets in every layout, made for the tests, and a hub that serves them."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coltrain.data import Collection, Query, Row

HUB_SERVER = Path(__file__).parents[1] / "hub_server.py"


@pytest.fixture(autouse=True, scope="session")
def _cache_of_datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables are copied into a folder of the test run, not into the user's cache."""
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


def _png(color: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 4), (color % 256, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """An encoded page whose red channel is the number."""
    return _png


@pytest.fixture(scope="session")
def write_table() -> Callable[..., Path]:
    """Writes columns as a parquet file; `image` holds bytes and paths as `datasets` stores them."""

    def write(path: Path, /, **columns: list) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {}
        for name, values in columns.items():
            if name == "image":
                values = [
                    v if not isinstance(v, bytes) else {"bytes": v, "path": None} for v in values
                ]
            table[name.replace("__", "-")] = values
        pq.write_table(pa.table(table), path)
        return path

    return write


@pytest.fixture(scope="session")
def write_corpus(write_table) -> Callable[..., Path]:
    """Writes a folder in the corpus layout: four pages, three queries, four judgements."""

    def write(folder: Path, /, **replaced: dict) -> Path:
        tables = {
            "corpus": {
                "doc_id": ["p0", "p1", "p2", "p3"],
                "image": [_png(color) for color in (0, 10, 20, 30)],
                "source": ["manual", "manual", "scan", "scan"],
            },
            "queries": {"query_id": ["q0", "q1", "q2"], "text": ["how", "what", "why"]},
            "qrels": {
                "query_id": ["q0", "q1", "q1", "q2"],
                "doc_id": ["p1", "p2", "p3", "p0"],
                "score": [1, 2, 1, 0],
            },
        }
        for name, columns in tables.items():
            if replaced.get(name, ...) is not None:
                write_table(folder / f"{name}.parquet", **replaced.get(name, columns))
        return folder

    return write


class _NoImages:
    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (index, 0, 0))


@pytest.fixture(scope="session")
def make_collection() -> Callable[..., Collection]:
    """A collection of pairs (query text, page number); one query for each pair."""

    def make(pairs: list[tuple[str, int]], name: str = "pairs", **more: object) -> Collection:
        num_pages = 1 + max(page for _, page in pairs)
        return Collection(
            name=name,
            layout="rows",
            page_ids=[f"p{page}" for page in range(num_pages)],
            queries=[Query(str(place), text) for place, (text, _) in enumerate(pairs)],
            rows=[Row(place, page, name) for place, (_, page) in enumerate(pairs)],
            qrels=more.pop("qrels", {str(i): {f"p{page}": 1} for i, (_, page) in enumerate(pairs)}),
            images=_NoImages(num_pages),
            **more,
        )

    return make


class RunningHub:
    """A hub of a folder, in a process of its own.

    Attributes:
        root: Its repositories, as `tests/hub_server.py` lays them out.
        address: For `HF_ENDPOINT`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = (root / "requests.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(HUB_SERVER), str(root)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def requests(self) -> list[str]:
        """What was asked so far, as `GET /path`."""
        return (self.root / "requests.log").read_text().splitlines()

    def stop(self) -> None:
        """End the server; may be called twice."""
        self._process.terminate()
        self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub without repositories; write them below its root."""
    root = tmp_path / "hub"
    root.mkdir()
    running = RunningHub(root)
    yield running
    running.stop()
