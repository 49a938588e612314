"""A short round of the fault script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.postgresql import programs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "kill.py"


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed")
def test_a_run_whose_parts_are_killed_ends_as_if_nothing_had_been() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    support = str(SCRIPT.parents[1])
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "4", "--repeats", "2", "--seed", "2"],
        env=os.environ | {"PYTHONPATH": support},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 kills" in ended.stdout
    assert "each once and as undisturbed" in ended.stdout
