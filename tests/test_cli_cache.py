"""`coltrain cache`: what is kept, whether it is whole, and away with it."""

import json

import pytest
import torch

from coltrain.model.page_cache import default_pages_folder, page_identity
from coltrain.model.vision_cache import FeatureStore, default_folder
from coltrain.model.vision_cache.store import PageFeatures

IDENTITY = {"stored_as": "float32", "computed_in": "float32", "max_visual_tokens": 64}


@pytest.fixture
def features(tmp_path):
    """Three pages of one vision tower and one of another."""
    folder = tmp_path / "features"
    stores = [FeatureStore(folder, IDENTITY | {"device": name}, 1.0) for name in ("cpu", "cuda")]
    for store, pages in zip(stores, ("abc", "d"), strict=True):
        for page in pages:
            store.add(page, PageFeatures(torch.randn(4, 8), 4, 4))
    return folder, [store.folder.name for store in stores]


def test_show_lists_each_tower_with_pages_and_size(coltrain, features):
    folder, keys = features
    code, out, _ = coltrain("cache", "show", folder, "--json")
    assert code == 0
    towers = {one["key"]: one for one in json.loads(out)["towers"]}
    assert [(towers[key]["pages"], towers[key]["bytes"]) for key in keys] == [(3, 384), (1, 128)]
    code, out, _ = coltrain("cache", "show", folder)
    assert code == 0
    assert all(key in out for key in keys)


def test_check_finds_damage_and_says_so_by_its_exit_code(coltrain, features):
    folder, keys = features
    code, out, _ = coltrain("cache", "check", folder, "--json")
    assert code == 0
    assert sum(one["whole"] for one in json.loads(out)["towers"]) == 4
    [segment] = (folder / keys[0]).glob("*.features")
    content = bytearray(segment.read_bytes())
    content[0] ^= 1
    segment.write_bytes(content)
    code, out, _ = coltrain("cache", "check", folder, "--tower", keys[0], "--json")
    assert code == 1
    [found] = json.loads(out)["towers"]
    assert (found["pages"], found["whole"], found["damaged"]) == (3, 2, 1)


def test_clear_deletes_what_is_named_and_nothing_else(coltrain, features):
    folder, keys = features
    (folder / "mine.txt").write_text("")
    code, _, _ = coltrain("cache", "clear", folder, "--tower", keys[0])
    assert code == 0
    assert not (folder / keys[0]).exists()
    code, out, _ = coltrain("cache", "clear", folder, "--json")
    assert [one["pages"] for one in json.loads(out)["deleted"]] == [1]
    assert (folder / "mine.txt").exists()
    assert json.loads(coltrain("cache", "show", folder, "--json")[1])["towers"] == []


def test_a_folder_or_tower_that_is_not_there_is_one_clear_error(coltrain, features, tmp_path):
    for verb in ("show", "check", "clear"):
        code, out, err = coltrain("cache", verb, tmp_path)
        assert (code, out) == (2, "")
        assert "[no-vision-cache]" in err
    code, _, err = coltrain("cache", "clear", features[0], "--tower", "nine")
    assert code == 2
    assert "[unknown-tower]" in err
    assert features[1][0] in err


def test_without_a_folder_both_caches_of_auto_are_shown_and_cleared(
    coltrain, tmp_path, monkeypatch, tiny_retriever
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, _, err = coltrain("cache", "show")
    assert code == 2
    assert "neither visual tokens nor resized pages" in err
    FeatureStore(default_folder(), IDENTITY, 1.0).add("a", PageFeatures(torch.randn(4, 8), 4, 4))
    identity = page_identity(tiny_retriever.built.preparer, "exact")
    pixels = torch.zeros(28, 84, dtype=torch.uint8)
    FeatureStore(default_pages_folder(), identity, 1.0).add("a", PageFeatures(pixels, 2, 2))
    code, out, _ = coltrain("cache", "show", "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found["folders"]) == 2
    assert [one["bytes"] for one in found["towers"]] == [128, 28 * 84]
    assert "uint8" in coltrain("cache", "show")[1]
    assert coltrain("cache", "check")[0] == 0
    code, out, _ = coltrain("cache", "clear", "--json")
    assert len(json.loads(out)["deleted"]) == 2
    assert json.loads(coltrain("cache", "show", "--json")[1])["towers"] == []
