from dataclasses import replace

import pytest
from evaluation_data import (
    LANGUAGES,
    PART,
    image,
    write,
    write_beir,
    write_rows,
    write_v2,
    write_v3,
)
from small_pages import small_page, small_query

from coltrain.errors import DataError, UsageError
from coltrain.evaluation.benchmarks.loading import load_tasks
from coltrain.evaluation.benchmarks.names import asked_for


def load(task, folder, **more):
    [data] = load_tasks([task], data_dir=folder, **more)
    return data


def test_the_beir_layout_has_the_ids_of_mteb(tmp_path, tabfquad):
    data = load(tabfquad, write_beir(tmp_path))
    assert data.layout == "beir"
    assert data.collection.page_ids == [f"corpus-test-{page}" for page in range(4)]
    assert [q.id for q in data.collection.queries] == [f"query-test-{n}" for n in range(3)]
    assert [q.text for q in data.collection.queries] == [small_query(n) for n in range(3)]
    assert data.collection.qrels["query-test-0"] == {"corpus-test-1": 1, "corpus-test-2": 1}
    assert data.language_of == dict.fromkeys(data.collection.qrels, "french")
    assert data.base_of == {query: query for query in data.collection.qrels}
    assert data.collection.page_image(2).tobytes() == small_page(2).tobytes()
    assert data.differences == ()


def test_v2_tells_languages_apart_by_a_column_and_shares_the_corpus(tmp_path, small):
    data = load(small("v2-esg"), write_v2(tmp_path))
    assert data.layout == "beir"
    assert len(data.collection.page_ids) == 5
    assert list(data.language_of.values()) == [lang for lang in LANGUAGES[:4] for _ in range(2)]
    assert set(data.base_of.values()) == {"query-test-0", "query-test-1"}
    assert [q for q, base in data.base_of.items() if base == "query-test-1"] == [
        f"query-test-{n}" for n in (1, 3, 5, 7)
    ]


def test_v3_has_tables_for_each_language_whose_judgements_are_those_of_all(tmp_path, small):
    data = load(small("v3-hr"), write_v3(tmp_path))
    assert data.layout == "mteb"
    assert len(data.collection.page_ids) == 5
    assert len(data.collection.queries) == 12
    assert data.collection.qrels["query-test-4"] == {"corpus-test-0": 1, "corpus-test-3": 2}
    assert len(set(data.base_of.values())) == 2
    assert data.collection.left_out == {}


def test_languages_that_are_no_subset_of_the_task_are_left_out(tmp_path, small):
    data = load(small("v2-esg"), write_v2(tmp_path, LANGUAGES))
    assert set(data.language_of.values()) == set(LANGUAGES[:4])
    assert len(data.collection.qrels) == 8


def test_all_pages_of_a_query_in_several_rows_are_relevant_unless_the_last_is_asked_for(
    tmp_path, tabfquad
):
    task = replace(tabfquad, base_queries=3)
    data = load(task, write_rows(tmp_path))
    assert data.layout == "question-answer"
    assert data.collection.page_ids == ["a.png", "b.png", "c.png", "d.png"]  # one a file name
    assert [q.text for q in data.collection.queries] == ["what is paid", "who signs", "when"]
    assert data.collection.qrels["0"] == {"a.png": 1, "d.png": 1}
    assert data.duplicates == "all-pages"

    last = load(task, tmp_path, duplicates="last-row")
    assert last.collection.qrels == {"0": {"d.png": 1}, "2": {"c.png": 1}, "4": {"a.png": 1}}
    assert last.provenance()["duplicates"] == "last-row"
    assert last.collection.page_ids == data.collection.page_ids


def test_other_counts_are_refused_with_the_difference(tmp_path, tabfquad):
    write_beir(tmp_path, num_pages=5, num_queries=2)
    with pytest.raises(DataError) as caught:
        load(tabfquad, tmp_path)
    assert caught.value.code == "other-counts"
    assert caught.value.received == (
        "2 judged queries, expected 3 (-1)\n3 judgements, expected 4 (-1)\n5 pages, expected 4 (+1)"
    )
    assert caught.value.where == str(tmp_path)
    data = load(tabfquad, tmp_path, allow_other_counts=True)
    assert data.provenance()["other_counts"] == caught.value.received.split("\n")


def test_a_language_that_lacks_a_query_is_named(tmp_path, small):
    write_v2(tmp_path)
    write(
        tmp_path / "queries" / PART,
        query__id=list(range(7)),
        query=[small_query(number) for number in range(7)],
        language=[LANGUAGES[number // 2] for number in range(7)],
    )
    write(
        tmp_path / "qrels" / PART,
        query__id=[0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6],
        corpus__id=[0, 3, 2] * 3 + [0, 3],
        score=[1] * 11,
    )
    with pytest.raises(DataError, match=r"1 judged queries in german, expected 2 \(-1\)") as caught:
        load(small("v2-esg"), tmp_path)
    assert "french" not in caught.value.received


def test_judgements_of_pages_and_queries_that_do_not_exist_are_refused(tmp_path, tabfquad):
    write_beir(tmp_path)
    write(tmp_path / "qrels" / PART, query__id=[0, 1], corpus__id=[1, 9], score=[1, 1])
    with pytest.raises(DataError, match="that the corpus does not have") as caught:
        load(tabfquad, tmp_path)
    assert (caught.value.code, caught.value.received) == ("unknown-id", "'9'")
    write(tmp_path / "qrels" / PART, query__id=[0, 7], corpus__id=[1, 1], score=[1, 1])
    with pytest.raises(DataError, match="that the queries do not have"):
        load(tabfquad, tmp_path)


def test_a_page_without_an_image_is_named(tmp_path, tabfquad):
    write_beir(tmp_path)
    images = [image(0), None, image(2), {"bytes": None, "path": None}]
    write(tmp_path / "corpus" / PART, corpus__id=[0, 1, 2, 3], image=images)
    with pytest.raises(DataError) as caught:
        load(tabfquad, tmp_path)
    assert caught.value.code == "page-without-image"
    assert caught.value.received == "row 1 of the pages: corpus-id 1"
    write(tmp_path / "corpus" / PART, corpus__id=[0, 1, 2, 3], image=[image(0), *images[2:], None])
    with pytest.raises(DataError, match="row 2 of the pages: corpus-id 2"):
        load(tabfquad, tmp_path)


def test_data_without_a_judged_query_are_refused(tmp_path, tabfquad):
    write_beir(tmp_path)
    write(tmp_path / "qrels" / PART, query__id=[0], corpus__id=[1], score=[0])
    with pytest.raises(DataError) as caught:
        load(tabfquad, tmp_path)
    assert caught.value.code == "nothing-judged"


def test_a_folder_has_a_folder_for_each_task_by_any_of_its_names(tmp_path, tabfquad, small):
    write_beir(tmp_path / "tabfquad_test_subsampled_beir")
    write_v2(tmp_path / "Vidore2ESGReportsRetrieval")
    write_v3(tmp_path / "V3-HR")
    loaded = load_tasks([tabfquad, small("v2-esg"), small("v3-hr")], data_dir=tmp_path)
    assert [data.collection.name for data in loaded] == [
        "VidoreTabfquadRetrieval",
        "Vidore2ESGReportsRetrieval",
        "Vidore3HrRetrieval",
    ]
    assert [data.layout for data in loaded] == ["beir", "beir", "mteb"]


def test_what_is_missing_from_a_folder_is_said_of_all_tasks_with_the_commands(tmp_path, tabfquad):
    write_beir(tmp_path / "tabfquad")
    with pytest.raises(DataError) as caught:
        load_tasks([tabfquad, *asked_for("vidore-v2").tasks[:2]], data_dir=tmp_path)
    error = caught.value
    assert error.code == "benchmark-unreachable"
    assert error.message == "2 tasks are not on this machine."
    assert error.expected.split("\n") == [
        "Vidore2ESGReportsRetrieval: corpus/*.parquet queries/*.parquet qrels/*.parquet",
        "Vidore2EconomicsReportsRetrieval: corpus/*.parquet queries/*.parquet qrels/*.parquet",
    ]
    assert error.suggestion.split("\n") == [
        "where there is a connection:",
        "hf download vidore/esg_reports_v2 --repo-type dataset --revision "
        f"0542c0d03da0ec1c8cbc517c8d78e7e95c75d3d3 --local-dir {tmp_path}/v2-esg",
        "hf download vidore/economics_reports_v2 --repo-type dataset --revision "
        f"b3e3a04b07fbbaffe79be49dabf92f691fbca252 --local-dir {tmp_path}/v2-economics",
        f"then copy the folder here and say --data-dir {tmp_path}",
    ]


def test_a_copy_that_lacks_a_table_says_which(tmp_path, tabfquad, small):
    write_beir(tmp_path / "tabfquad")
    (tmp_path / "tabfquad" / "qrels" / PART).unlink()
    with pytest.raises(DataError, match=r"qrels/\*\.parquet") as caught:
        load(tabfquad, tmp_path)
    assert caught.value.code == "missing-file"
    write_v3(tmp_path / "v3-hr")
    (tmp_path / "v3-hr" / "german-queries" / PART).unlink()
    with pytest.raises(DataError, match=r"expected  german-queries/\*\.parquet"):
        load(small("v3-hr"), tmp_path)


def note_commit(folder, commit):
    """As `hf download --local-dir` does."""
    note = folder / ".cache" / "huggingface" / "download" / "corpus" / f"{PART}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{commit}\netag\n0.0\n")


def test_a_copy_knows_its_edition_by_the_commit_that_the_download_noted(tmp_path, tabfquad):
    write_beir(tmp_path)
    assert load(tabfquad, tmp_path).provenance()["revision"] is None
    commit = tabfquad.editions["beir"].revision
    note_commit(tmp_path, commit)
    provenance = load(tabfquad, tmp_path).provenance()
    assert (provenance["edition"], provenance["revision"]) == ("beir", commit)


def test_a_copy_of_another_revision_is_refused(tmp_path, tabfquad):
    write_beir(tmp_path)
    note_commit(tmp_path, "0" * 40)
    with pytest.raises(DataError) as caught:
        load(tabfquad, tmp_path)
    assert caught.value.code == "other-revision"
    assert caught.value.received == "0" * 40
    assert tabfquad.editions["mteb"].source in caught.value.expected


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"edition": "2024"}, "unknown-edition"),
        ({"duplicates": "first-row"}, "unknown-rule"),
        ({"duplicates": "last-row"}, "rule-without-rows"),
    ],
)
def test_editions_and_rules_that_there_are_not_are_refused(tmp_path, tabfquad, more, code):
    with pytest.raises(UsageError) as caught:
        load(tabfquad, write_beir(tmp_path), **more)
    assert caught.value.code == code


def test_v2_has_one_edition(tmp_path, small):
    with pytest.raises(UsageError) as caught:
        load(small("v2-esg"), tmp_path, edition="qa")
    assert caught.value.code == "no-such-edition"


def test_a_folder_that_is_not_there_is_named(tmp_path, tabfquad):
    with pytest.raises(DataError, match="there is no such data folder"):
        load(tabfquad, tmp_path / "nowhere")
