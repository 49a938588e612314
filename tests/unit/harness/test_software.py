"""The driver's tlbench, packed for nodes that have another one, or none."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tlbench.cluster.software import (
    PACKAGES,
    Software,
    differences,
    look,
    pack,
    source_files,
)

SAME = Software("3.11.7", dict.fromkeys(PACKAGES, "1.0"), tlbench="a")
PROGRAM = """
import importlib.metadata, json, sys
import tlbench.runner, tlbench.trial
from importlib.resources import files
print(json.dumps([
    tlbench.trial.__file__,
    tlbench.db.__file__,
    importlib.metadata.version("tlbench"),
    files("tlbench.suites").joinpath("smoke.yaml").is_file(),
]))
"""


def test_the_source_has_every_part_of_tlbench() -> None:
    names = source_files().keys()
    assert {
        "__init__.py",
        "cluster/workers.py",
        "db/store.py",
        "reports/templates/page.html",
        "suites/smoke.yaml",
    } <= names
    assert not any("__pycache__" in name for name in names)


def test_what_is_packed_runs_as_it_does_here(tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    package, about = map(Path, pack(folder))
    assert package.parent == about.parent == folder
    search = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    ended = subprocess.run(
        [sys.executable, "-c", search + PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    trial, db, version, has_suites = json.loads(ended.stdout)
    assert trial == str(package / "trial.py")
    assert db == str(package / "db" / "__init__.py")
    assert version == about.name.removeprefix("tlbench-").removesuffix(".dist-info")
    assert has_suites


def test_nodes_that_have_the_same_do_not_differ() -> None:
    """In tlbench they may: that of the driver is sent there."""
    assert differences([("a", SAME), ("b", replace(SAME, tlbench=None))]) == []


def test_differences_name_the_package_its_versions_and_the_nodes() -> None:
    other = {**SAME.versions, "timm": "0.9", "deepspeed": None}
    found = [("a", SAME), ("b", replace(SAME, versions=other)), ("c", SAME)]
    assert differences(found) == [
        "deepspeed is 1.0 on a, c; none on b",
        "timm is 1.0 on a, c; 0.9 on b",
    ]
    assert differences([("a", SAME), ("b", replace(SAME, python="3.12.1"))]) == [
        "python is 3.11.7 on a; 3.12.1 on b"
    ]


def test_nodes_of_one_machine_share_a_name() -> None:
    found = [("a", SAME), ("a", replace(SAME, python="3.12.1"))]
    assert differences(found) == ["python is 3.11.7 on a; 3.12.1 on a"]


def test_a_package_that_no_node_has_is_told() -> None:
    bare = replace(SAME, versions={**SAME.versions, "torch": None})
    assert differences([("a", bare), ("b", bare)]) == ["torch is none on a, b"]


def test_a_process_finds_what_it_would_run() -> None:
    found = Software(**look())
    assert found.tlbench is not None
    assert found == Software(**look())
    assert all(found.versions.values())
