"""The first attempts of both campaigns; by hand they make thousands."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "count"), [("suites.py", 300), ("databases.py", 24)]
)
def test_nothing_malformed_or_damaged_is_worse_than_an_error(
    script: str, count: int
) -> None:
    ended = subprocess.run(
        [sys.executable, FOLDER / script, "--count", str(count), "--seed", "7"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{count:7,}  in all; violations: 0" in ended.stdout
