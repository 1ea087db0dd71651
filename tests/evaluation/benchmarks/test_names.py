import pytest

from coltrain.errors import UsageError
from coltrain.evaluation.benchmarks.catalogue import benchmarks, tasks
from coltrain.evaluation.benchmarks.names import asked_for


@pytest.mark.parametrize(
    ("name", "number"), [("vidore-v1", 10), ("vidore-v2", 4), ("ViDoRe-v3", 8)]
)
def test_a_benchmark_is_all_of_its_tasks(name, number):
    asked = asked_for(name)
    assert len(asked.tasks) == number
    assert asked.benchmark.tasks == asked.tasks


@pytest.mark.parametrize(
    ("name", "edition"),
    [
        ("VidoreDocVQARetrieval", None),
        ("vidoredocvqaretrieval", None),
        ("docvqa", None),
        ("mteb/docvqa_test_subsampled_beir", "mteb"),
        ("vidore/docvqa_test_subsampled_beir", "beir"),
        ("vidore/docvqa_test_subsampled", "qa"),
        ("vidore/docvqa_test_subsampled_beir@162ba2fc1a8437eda8b6c37b240bc1c0f0deb092", "beir"),
    ],
)
def test_a_task_has_a_name_in_mteb_a_short_one_and_those_of_the_hub(name, edition):
    asked = asked_for(name)
    assert [task.name for task in asked.tasks] == ["VidoreDocVQARetrieval"]
    assert (asked.benchmark, asked.edition) == (None, edition)


@pytest.mark.parametrize(
    "name",
    [
        "./docvqa",
        "/data/vidore-v1",
        "vidore/docvqa_test_subsampled_beir@main",  # another revision is another data set
        "someone/reports",
        "tiny",
        "receipts",
        "colpali_train_set_detailed",
    ],
)
def test_a_folder_another_revision_or_another_data_set_is_no_task(name):
    assert asked_for(name) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vidore-v4", "vidore-v1"),
        ("vidorev2", "vidore-v2"),
        ("docvq", "docvqa"),
        ("VidoreTabfquadRetreival", "VidoreTabfquadRetrieval"),
        ("v3-finance", "v3-finance-en"),
    ],
)
def test_a_name_that_is_nearly_one_is_refused_with_the_nearest(name, near):
    with pytest.raises(UsageError) as caught:
        asked_for(name)
    assert caught.value.code == "unknown-benchmark"
    assert caught.value.received == name
    assert caught.value.suggestion == f"{near}; for a folder of this name, ./{name}"


def test_no_name_stands_for_two_tasks():
    names = [name.casefold() for task in tasks() for name in task.names]
    assert len(set(names)) == len(names)
    folders = [name.casefold() for task in tasks() for name in set(task.folder_names)]
    # The sets of v1 have one last part under mteb/ and vidore/, of one task.
    assert len(set(folders)) == len(folders)
    assert not set(names) & {benchmark.name for benchmark in benchmarks()}
