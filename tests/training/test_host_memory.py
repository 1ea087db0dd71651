import pytest

from coltrain.errors import RunError
from coltrain.training import host_memory
from coltrain.training.host_memory import available_bytes, needed, refuse_too_little_memory


@pytest.fixture
def setup(start):
    """Of a run with pages of 4, 6 and 9 visual tokens and 6 pages to search."""
    return start("eval.data=[small-test]", "data.num_workers=2", "batch.chunk_size=3").setup


def test_the_need_follows_from_the_sizes_of_the_data(setup):
    evaluation, pixels, batch = needed(setup)
    preparer, data = setup.built.preparer, setup.eval_data[0]
    # 6 pages of 4, 6, 9, 4, 6, 9 visual tokens: the mean is 6, and the prompt comes on top.
    page = len(preparer.page_ids(6))
    query = sum(len(preparer.query_ids(query.text)) for query in data.queries) // 6
    assert evaluation.num_bytes == 4 * ((6 * page + 6 * query) * 128 + 6 * 6)
    # Training pages 0, 5, 10, …, 35 of 4, 9, 6, 4, 9, 6, 4, 9 visual tokens of 4 patches; a patch
    # has 3 channels x 2 frames x 14 x 14 pixels. Two workers have two chunks of three pages each.
    assert pixels.num_bytes == 2 * 2 * 3 * (51 * 4 * 3 * 2 * 14 * 14 * 4 // 8)
    hidden = setup.built.model.custom_text_proj.in_features
    assert batch.num_bytes == 8 * (2 * 4 * len(preparer.page_ids(6)) * 128 + 6 * 4 * hidden)


def test_a_run_that_cannot_fit_is_refused_with_the_numbers(setup):
    total = sum(need.num_bytes for need in needed(setup))
    refuse_too_little_memory(setup, total)
    with pytest.raises(RunError, match=r"\[host-memory\]: the run would need more") as caught:
        refuse_too_little_memory(setup, total - 1)
    words = caught.value.received.splitlines()
    assert words[0].startswith("at least ")
    assert len(words) == 4
    assert "pixels of 4 chunks of 3 pages" in words[1]
    assert caught.value.suggestion == "a smaller data.num_workers or batch.chunk_size"
    assert caught.value.expected.startswith("at most ")


def test_the_train_command_asks_before_anything_is_written(start, monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 1000)
    with pytest.raises(RunError, match=r"\[host-memory\]"):
        start(folder=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_container_may_have_less_than_its_machine(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:      90 kB\n")
    assert host_memory._of_the_system(tmp_path / "meminfo") == 90 * 1024
    assert host_memory._of_the_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert host_memory._of_the_group(tmp_path) is None  # no limit
    (tmp_path / "memory.max").write_text("20000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\ninactive_file 1000\n")
    assert host_memory._of_the_group(tmp_path) == 20000 - 5000 + 1000
    assert available_bytes() is None or available_bytes() > 0
