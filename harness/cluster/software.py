"""What runs on the nodes: the driver's tlbench, and beside it the same everywhere.

The functions that look are sent to the nodes as they stand here, since another tlbench
may be there, or none: so this file imports nothing of tlbench at its top.
"""

import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PACKAGES = ("ray", "torch", "torchvision", "deepspeed", "timm", "numpy")
"""Their versions are to be the same on all nodes; tlbench itself is sent there."""
PARTS = {"": "tlbench", "db": "tlbench.db"} | {
    name: f"tlbench.{name}" for name in ("reports", "suites")
}
"""Where each package of tlbench stands below its first one, wherever its files lie."""


@dataclass(frozen=True)
class Software:
    """What one node has."""

    python: str
    versions: Mapping[str, str | None]
    """Of `PACKAGES`; None: it is not there."""
    tlbench: str | None
    """SHA-256 over its files; None: it is not there."""


def source_files() -> dict[str, Path]:
    """The files of tlbench by their paths in a package, however it is installed."""
    found: dict[str, Path] = {}
    for place, package in PARTS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    name = Path(place, file.relative_to(folder)).as_posix()
                    found.setdefault(name, file)
    return found


def look() -> dict[str, Any]:
    """What this process would run; of plain values, for whoever has no tlbench."""
    try:
        files = source_files()
    except ModuleNotFoundError:
        files = {}
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "tlbench": digest.hexdigest() if files else None,
    }


def ask(node_ids: Iterable[str]) -> dict[str, Any]:
    """Calls, all begun, that bring what `look` finds on these nodes."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return {
            node: ray.remote(look)
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
            for node in node_ids
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def answers(calls: Mapping[str, Any], timeout_s: float) -> dict[str, Software | None]:
    """What nodes have that were asked, of those that are done; None: they failed."""
    waiting = list(calls.values())
    ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=timeout_s)
    found: dict[str, Software | None] = {}
    for node, call in calls.items():
        if call in ended:
            found[node] = None
            with suppress(RayError):
                found[node] = Software(**ray.get(call))
    return found


def differences(found: Sequence[tuple[str, Software]]) -> list[str]:
    """In what nodes differ, a sentence each; they come with their names.

    Several nodes may have one name: those that share a machine do.
    """
    told = []
    for package in ("python", *PACKAGES):
        by_version: dict[str | None, list[str]] = {}
        for node, software in found:
            version = (
                software.python
                if package == "python"
                else software.versions.get(package)
            )
            by_version.setdefault(version, []).append(node)
        if len(by_version) > 1 or None in by_version:
            words = [
                f"{version or 'none'} on {', '.join(nodes)}"
                for version, nodes in by_version.items()
            ]
            told.append(f"{package} is {'; '.join(words)}")
    return told


def pack(folder: Path) -> list[str]:
    """Write the driver's tlbench into a folder, as Ray's `py_modules` wants it.

    No wheel: Ray would let pip install one, with all that tlbench depends on.
    """
    package = folder / "tlbench"
    for name, file in source_files().items():
        copy = package / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    version = importlib.metadata.version("tlbench")
    about = folder / f"tlbench-{version}.dist-info"
    about.mkdir()
    text = f"Metadata-Version: 2.1\nName: tlbench\nVersion: {version}\n"
    (about / "METADATA").write_text(text)
    return [str(package), str(about)]
