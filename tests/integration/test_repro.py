"""`tlbench repro` and `tlbench trend` as a user runs them, on a local Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TLBENCH = Path(sys.executable).parent / "tlbench"
SUITE = """\
name: tiny
models:
  name: tiny
  image_size: 8
  patch_size: 4
  embed_dim: 16
  depth: 2
  num_heads: 2
  mlp_dim: 32
mode: fit
data: digits
fit: {epochs: 1}
repeats: 2
"""


def tlbench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TLBENCH, *arguments],
        cwd=folder,
        env=os.environ | {"TLBENCH_DB": "results.db"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_training_run_again_has_the_same_losses(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    ran = tlbench(tmp_path, "run", "tiny.yaml")
    assert ran.returncode == 0, ran.stderr
    again = tlbench(tmp_path, "repro", "2", "--fail-on", "differs", "--json")
    assert again.returncode == 0, again.stderr + again.stdout
    told = json.loads(again.stdout)
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert verdicts["loss at each step, same seed"] == "agrees"
    assert verdicts["top1_percent, same seed"] == "agrees"
    assert (told["verdict"], told["differences"]) == ("agrees", [])
    trend = tlbench(tmp_path, "trend", "tiny", "--metric", "top1_percent", "--json")
    (series,) = json.loads(trend.stdout)
    assert [point["n"] for point in series["points"]] == [2, 1]
