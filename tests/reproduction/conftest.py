"""A finished run with its report, made once."""

from pathlib import Path

import pytest
from report_reader import Page, read_page
from run_on_paper import write_run

from coltrain.reproduction.report import write_report


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps; not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def page(finished_run: Path) -> Page:
    """Its page."""
    return read_page(write_report(finished_run))
