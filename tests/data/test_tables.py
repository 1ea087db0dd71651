"""Tables that cannot be copied into the cache."""

import errno

import datasets
import pytest

from coltrain.data.tables import read_parquet
from coltrain.errors import DataError


def test_a_full_disk_is_not_taken_for_a_broken_file(tmp_path, write_table, monkeypatch):
    file = write_table(tmp_path / "rows.parquet", query=["how"])

    def full(*_, **__):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("no dataset") from error

    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(DataError) as caught:
        read_parquet([file], "pages")
    assert caught.value.code == "cannot-cache"
    assert "No space left on device" in caught.value.received
    assert "HF_DATASETS_CACHE" in caught.value.suggestion
