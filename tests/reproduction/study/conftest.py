"""A study of small runs: two factors, two steps of eight queries, six pages to find."""

import pytest
from small_pages import small_collection

from coltrain.reproduction.study import hours, measuring, plan
from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.reading import study_from_yaml
from coltrain.training import setup

SMALL = """
name: small
base: tiny
overrides:
  data.train: [small-train]
  batch.global_size: 8
  batch.chunk_size: 4
  train.steps: 2
  optimizer.warmup_steps: 0
  optimizer.learning_rate: 0.02
factors:
  negatives: {key: batch.negatives, levels: [global, 2]}
  length: {key: train.steps, levels: [2, 1]}
design: full
seeds: 2
evaluation: {data: [small-test]}
"""


@pytest.fixture
def small_data(monkeypatch):
    """The data sets that the study names; may be changed by a test."""
    known = {
        "small-train": small_collection("small-train", 40),
        "small-test": small_collection("small-test", 12, first=200),
    }
    for module in (setup, plan, hours, measuring):
        really = module.load_collection

        def load(source, split, really=really):
            return known[source.path] if source.path in known else really(source, split)

        monkeypatch.setattr(module, "load_collection", load)
    return known


@pytest.fixture
def small_study(small_data, tmp_path):
    """Makes a plan and a folder for a study, which may be changed by replacing text."""

    def make(*changes: tuple[str, str], folder: str = "study"):
        text = SMALL
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "small.yaml").write_text(text)
        made = plan.make_plan(study_from_yaml(text, "small.yaml"))
        place = StudyFolder(tmp_path / folder)
        place.begin(made)
        return place, made

    return make
