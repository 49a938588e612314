import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from tlbench import machine
from tlbench.machine import fingerprint

GIB = 1024**3


def test_fingerprint_describes_this_machine() -> None:
    found = fingerprint()
    assert found.hostname == platform.node()
    assert found.cpu_cores == len(os.sched_getaffinity(0))
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.python == platform.python_version()
    assert found.versions["tlbench"] is not None
    assert set(found.versions) == {
        *("tlbench", "torch", "deepspeed", "ray", "timm", "cuda", "nccl")
    }


def test_fingerprint_can_be_stored_as_json() -> None:
    found = fingerprint()
    assert machine.Machine(**json.loads(json.dumps(vars(found)))) == found


def test_fingerprint_is_the_same_twice() -> None:
    assert fingerprint() == fingerprint()


def test_fingerprint_takes_less_than_50_ms() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        fingerprint()
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.050  # the least disturbed of five


def test_fingerprint_imports_nothing_heavy() -> None:
    script = (
        "import sys; from tlbench.machine import fingerprint; fingerprint();"
        "print({'torch', 'ray', 'deepspeed', 'timm'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr


def test_environment_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret-token")
    assert "a-secret-token" not in repr(fingerprint())


def test_cores_are_those_of_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two cores")
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert fingerprint().cpu_cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_cpu_model_is_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU @ 2 GHz\n")
    monkeypatch.setattr(machine, "CPU_INFO", file)
    assert fingerprint().cpu_model == "Some CPU @ 2 GHz"


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/job", {"job/memory.max": GIB}, GIB),
        ("0::/job", {"job/memory.max": "max", "memory.max": 2 * GIB}, 2 * GIB),
        ("0::/a/b", {"a/b/memory.max": 3 * GIB, "a/memory.max": GIB}, GIB),
        ("0::/not/here", {"memory.max": GIB}, GIB),
        ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": GIB}, GIB),
        ("4:cpu:/job\n0::/", {"cpu/job/memory.limit_in_bytes": GIB}, None),
        ("0::/job", {"job/memory.max": 1 << 60}, None),
        ("", {}, None),
    ],
)
def test_memory_is_what_the_control_group_allows(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    membership: str,
    limits: dict[str, int | str],
    expected: int | None,
) -> None:
    (tmp_path / "membership").write_text(membership + "\n" if membership else "")
    for name, limit in limits.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    monkeypatch.setattr(machine, "CGROUP_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "CGROUP_ROOT", tmp_path / "cgroup")
    machine_has = psutil.virtual_memory().total
    assert fingerprint().memory_bytes == (expected or machine_has)


def test_cuda_and_nccl_come_from_torch_where_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(cuda="13.0")  # type: ignore[attr-defined]  # a fake
    nccl = SimpleNamespace(version=lambda: (2, 30, 7))
    torch.cuda = SimpleNamespace(nccl=nccl)  # type: ignore[attr-defined]  # a fake
    monkeypatch.setitem(sys.modules, "torch", torch)
    versions = fingerprint().versions
    assert (versions["cuda"], versions["nccl"]) == ("13.0", "2.30.7")


def test_torch_without_cuda_has_neither_cuda_nor_nccl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(cuda=None)  # type: ignore[attr-defined]  # a fake
    monkeypatch.setitem(sys.modules, "torch", torch)
    versions = fingerprint().versions
    assert (versions["cuda"], versions["nccl"]) == (None, None)


@pytest.mark.parametrize(
    ("version", "commit", "is_dirty"),
    [
        ("0.1.dev3+gabc1234", "abc1234", False),
        ("0.1.dev3+gabc1234.d20261122", "abc1234", True),
        ("1.0+d20261122", None, True),
        ("1.0", None, None),
        ("1.0+local", None, None),
    ],
)
def test_commit_of_an_installed_tlbench_is_read_from_its_version(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    commit: str | None,
    is_dirty: bool | None,
) -> None:
    monkeypatch.setattr(machine, "PACKAGE", Path("/usr/lib/site-packages/tlbench"))
    monkeypatch.setattr(machine, "version", lambda name: version)
    found = fingerprint()
    assert (found.commit, found.is_dirty) == (commit, is_dirty)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ("git", "-C", str(folder), *identity, *arguments)
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return run.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout of tlbench without a commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "machine.py").write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "harness")
    monkeypatch.setattr(machine, "PACKAGE", tmp_path / "harness")
    return tmp_path


def test_commit_of_a_checkout_is_asked_from_git(checkout: Path) -> None:
    git(checkout, "commit", "--quiet", "-m", "first")
    (checkout / "results.db").touch()  # untracked files are no change of the source
    found = fingerprint()
    assert found.commit == git(checkout, "rev-parse", "HEAD")
    assert found.is_dirty is False


def test_changed_checkout_is_dirty(checkout: Path) -> None:
    git(checkout, "commit", "--quiet", "-m", "first")
    (checkout / "harness" / "machine.py").write_text("two\n")
    assert fingerprint().is_dirty is True


def test_checkout_without_a_commit_has_none(checkout: Path) -> None:
    found = fingerprint()
    assert (found.commit, found.is_dirty) == (None, True)


def test_checkout_is_unknown_without_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    found = fingerprint()
    assert (found.commit, found.is_dirty) == (None, None)
