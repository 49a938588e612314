"""Runs to report on."""

import pytest

from support.report_run import RunBuilder, smoke_run


@pytest.fixture
def run() -> RunBuilder:
    """A run without any trial."""
    return RunBuilder()


@pytest.fixture
def smoke() -> RunBuilder:
    """Three models, timed and trained three times each."""
    return smoke_run()
