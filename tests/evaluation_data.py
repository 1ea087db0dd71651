"""Small copies of benchmark sets, in every layout that they are published in."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image
from small_pages import small_page, small_query

PART = "test-00000-of-00001.parquet"


def image(number: int) -> dict:
    """A page as `datasets` stores it."""
    stream = io.BytesIO()
    small_page(number).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write(path: Path, **columns: list) -> None:
    """Columns as a parquet file, as `push_to_hub` writes it; `__` in a name is `-`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset(pa.table({name.replace("__", "-"): v for name, v in columns.items()}))
    if "image" in columns:
        table = table.cast_column("image", Image())
    pq.write_table(table.data.table, path)  # the features are in the schema's metadata


def write_beir(folder: Path, num_pages: int = 4, num_queries: int = 3) -> Path:
    """Whole numbers as ids, scores in float64, as shiftproject has them; page 1 answers all."""
    write(
        folder / "corpus" / PART,
        corpus__id=list(range(num_pages)),
        image=[image(page) for page in range(num_pages)],
    )
    write(
        folder / "queries" / PART,
        query__id=list(range(num_queries)),
        query=[small_query(number) for number in range(num_queries)],
    )
    write(
        folder / "qrels" / PART,
        query__id=[*range(num_queries), 0],
        corpus__id=[*([1] * num_queries), 2],
        score=[1.0] * (num_queries + 1),
    )
    return folder


LANGUAGES = ("french", "spanish", "english", "german", "italian", "portuguese")


def write_v2(folder: Path, languages: tuple[str, ...] = LANGUAGES[:4]) -> Path:
    """Two questions in four languages, told apart by a column; one corpus."""
    write(
        folder / "corpus" / PART,
        corpus__id=list(range(5)),
        image=[image(page) for page in range(5)],
        doc__id=["report.pdf"] * 5,
    )
    numbers = list(range(2 * len(languages)))
    write(
        folder / "queries" / PART,
        query__id=numbers,
        query=[small_query(number) for number in numbers],
        language=[languages[number // 2] for number in numbers],
    )
    pairs = [(number, page) for number in numbers for page in ((0, 3), (2,))[number % 2]]
    write(
        folder / "qrels" / PART,
        query__id=[query for query, _ in pairs],
        corpus__id=[page for _, page in pairs],
        score=[1] * len(pairs),
    )
    return folder


def write_v3(folder: Path, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """The same in six languages in mteb's layout: every language repeats all judgements."""
    ids = [f"query-test-{number}" for number in range(2 * len(languages))]
    pairs = [(query, page) for n, query in enumerate(ids) for page in ((0, 3), (2,))[n % 2]]
    for place, language in enumerate(languages):
        write(
            folder / f"{language}-corpus" / PART,
            image=[image(page) for page in range(5)],
            id=[f"corpus-test-{page}" for page in range(5)],
        )
        write(
            folder / f"{language}-queries" / PART,
            language=[language] * 2,
            id=ids[2 * place : 2 * place + 2],
            text=[small_query(2 * place), small_query(2 * place + 1)],
        )
        write(
            folder / f"{language}-qrels" / PART,
            query__id=[query for query, _ in pairs],
            corpus__id=[f"corpus-test-{page}" for _, page in pairs],
            score=[2 if page == 3 else 1 for _, page in pairs],
        )
    return folder


def write_rows(folder: Path) -> Path:
    """Rows of question and page: one question twice, one page without a question, one page twice."""
    write(
        folder / "data" / PART,
        query=["what is paid", None, "who signs", "what is paid", "when"],
        image=[image(n) for n in (0, 1, 2, 3, 0)],
        image_filename=["a.png", "b.png", "c.png", "d.png", "a.png"],
        answer=["1", None, "2", "3", "4"],
    )
    return folder
