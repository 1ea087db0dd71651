"""`coltrain data show` and `coltrain data check`, run as typed, on planted copies."""

import io
import json

import pytest
from PIL import Image

from coltrain.data import Collection, Query, Row, load_collection, write_collection
from coltrain.data.drawn import drawn_collection
from coltrain.recipe.source import Source


@pytest.fixture(autouse=True, scope="module")
def _cache_of_datasets(tmp_path_factory):
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


class Encoded:
    """Pages as files."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return Image.open(io.BytesIO(self.files[index])).convert("RGB")

    def encoded(self, index):
        return self.files[index]


def encoded(image, form="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def write(folder, files, texts):
    """A folder in the corpus layout: a query for each of the first pages."""
    ids = [f"{folder.name}-{place}" for place in range(len(files))]
    queries = [Query(f"{folder.name}-q{place}", text) for place, text in enumerate(texts)]
    rows = [Row(place, place, "book" if place % 2 else "web") for place in range(len(texts))]
    qrels = {query.id: {ids[place]: 1} for place, query in enumerate(queries)}
    write_collection(
        folder, Collection(folder.name, "corpus", ids, queries, rows, qrels, Encoded(files))
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A training folder, and an evaluation folder with four of its pages and two of its queries."""
    root = tmp_path_factory.mktemp("planted")
    drawn = drawn_collection("test")
    pages = [drawn.page_image(place) for place in range(20)]
    half = pages[2].resize((pages[2].width // 2, pages[2].height // 2))
    white = Image.new("RGB", (300, 300), "white")
    write(
        root / "train",
        [*(encoded(page) for page in pages[:10]), encoded(pages[0]), encoded(white)],
        ["Where is the mill?", "How many?", "iron and glass"],
    )
    write(
        root / "test",
        [
            encoded(pages[15]),
            encoded(pages[3]),  # the same pixels
            encoded(pages[1], "JPEG", quality=40),
            encoded(half),
            encoded(pages[4].convert("L"), "JPEG", quality=90),
            encoded(pages[16]),
        ],
        ["how  many?", "a new one", "Iron, and glass"],
    )
    return root


def test_planted_pages_and_queries_are_found_with_their_places(coltrain, planted, tmp_path):
    code, out, err = coltrain(
        "data", "check", planted / "train", planted / "test", "--json", "--html", "leak.html"
    )
    assert code == 0, err
    document = json.loads(out)
    assert [(pair["eval"], pair["train"], pair["kind"]) for pair in document["pages"]] == [
        ("test-1", "train-3", "same-pixels"),
        ("test-2", "train-1", "same-picture"),
        ("test-3", "train-2", "same-picture"),
        ("test-4", "train-4", "same-picture"),
    ]
    assert document["pages"][0]["likeness"] == 1.0
    assert [(pair["eval"], pair["train"], pair["kind"]) for pair in document["queries"]] == [
        ("test-q0", "train-q1", "same-words"),
        ("test-q2", "train-q2", "same-letters"),
    ]
    assert document["train"]["blank_pages"] == 1
    name = planted.name
    assert document["verdict"] == (
        f"leakage: 4 of 6 pages and 2 of 3 queries of {name}/test occur in {name}/train"
    )
    page = (tmp_path / "leak.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8
    assert "Iron, and glass" in page
    assert "http://" not in page


def test_the_verdict_stands_in_the_exit_code_where_it_is_asked_for(coltrain, planted):
    code, out, _ = coltrain("data", "check", planted / "train", planted / "test", "--fail-on-leak")
    assert code == 1
    assert "test-2" in out
    assert out.strip().splitlines()[-1].startswith("leakage: 4 of 6 pages")
    code, out, _ = coltrain("data", "check", "tiny:dev", planted / "train", "--fail-on-leak")
    last = " ".join(out.split())
    assert code == 0
    assert "no leakage found: none of 12 pages and 3 queries of" in last


def test_a_set_is_shown_with_what_it_holds(coltrain, planted, tmp_path):
    code, out, err = coltrain("data", "show", planted / "train", "--json", "--html", "x/show.html")
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["pages"], found["queries"]) == (3, 12, 3)
    assert found["rows_per_source"] == {"book": 1, "web": 2}
    assert found["duplicate_pages"] == {
        "same_pixels": [["train-0", "train-10"]],
        "same_picture": [["train-0", "train-10"]],
        "blank": 1,
        "broken": {},
    }
    assert found["sizes"]["visual_tokens"]["100"] <= 768
    assert found["expected"] is None
    collection = load_collection(Source.model_validate(str(planted / "train")), "train")
    assert found["hash"] == collection.fingerprint()["hash"]
    assert len(set(found["hashes"].values())) == 5
    page = (tmp_path / "x" / "show.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 12 + 2
    assert "Where is the mill?" in page


def test_the_budget_changes_the_cost(coltrain, planted):
    costs = []
    for budget in (16, 64):
        arguments = ("data", "show", planted / "train", "--json", "--max-visual-tokens", budget)
        costs.append(json.loads(coltrain(*arguments)[1])["sizes"]["visual_tokens"]["100"])
    assert costs[0] <= 16 < costs[1] <= 64


def test_tables_are_for_people(coltrain, planted):
    code, out, _ = coltrain("data", "show", planted / "train")
    assert code == 0
    assert "pages with the pixels of an earlier one" in out
    assert "train-0, train-10" in out
    assert "expected: not known" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "./nothing"], "DataError [data-not-found]"),
        (["show", "{path: tiny, splits: test}"], "UsageError [not-a-source]"),
        (["show", "{path: tiny"], "UsageError [not-a-source]"),
        (["show", "a/b/c"], "DataError [data-not-found]"),
        (["check", "tiny:train", "vidore/pages"], "DataError [hub-offline]"),
        (["show", "tiny:train", "--split", "nowhere"], "DataError [unknown-split]"),
    ],
)
def test_what_cannot_be_looked_at_is_one_error(coltrain, arguments, words):
    code, out, err = coltrain("data", *arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_a_mapping_names_a_split(coltrain, planted):
    code, out, _ = coltrain("data", "show", f"{{path: {planted}, split: test}}", "--json")
    assert code == 0
    assert json.loads(out)["name"].endswith("/test")


def test_a_page_that_cannot_be_written(coltrain, planted, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = coltrain("data", "show", planted / "train", "--html", "file/show.html")
    assert code == 2
    assert "UsageError [cannot-write]" in err
