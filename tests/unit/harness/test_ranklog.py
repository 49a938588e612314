"""What a process prints, and where it hangs, seen from another process."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tlbench.ranklog import read_log, stacks_of

TIMEOUT_S = 60
HANGS = {
    "sleep": "import time\ndef stuck(): time.sleep(600)\n",
    "a C call that holds the GIL": (
        "import ctypes\n"
        "def stuck():\n"
        "    while True: ctypes.PyDLL(None).sleep(600)  # which a signal ends\n"
    ),
    "another thread": (
        "import threading\n"
        "def stuck(): threading.Event().wait()\n"
        "threading.Thread(target=stuck, daemon=True).start()\n"
    ),
}

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.fixture
def start(log: Path) -> Iterator[Start]:
    """Starts Python code that logs, and says `ready` when it has come to its end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        begin = "from pathlib import Path\nfrom tlbench.ranklog import log_to\n"
        program = f"{begin}log_to(Path({str(log)!r}))\n{code}"
        started.append(subprocess.Popen([sys.executable, "-c", program]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while words not in read_log(log, 10_000):
        assert time.monotonic() < deadline, read_log(log, 10_000)
        time.sleep(0.05)


def test_all_that_a_process_and_its_children_print_is_logged(
    start: Start, log: Path
) -> None:
    process = start(
        "import os, subprocess, sys\n"
        "print('by print')\n"
        "os.write(2, b'by the system\\n')\n"
        "subprocess.run(['echo', 'by a child'])\n"
        "print('\\udc80', file=sys.stderr)\n"
        "os._exit(3)\n"
    )
    assert process.wait(TIMEOUT_S) == 3
    lines = ["by print", "by the system", "by a child", "\\udc80"]
    assert read_log(log, 1000).splitlines() == lines


@pytest.mark.parametrize("hang", HANGS)
def test_a_process_that_hangs_tells_where(start: Start, log: Path, hang: str) -> None:
    process = start(f"{HANGS[hang]}print('ready')\nstuck()\n")
    wait_for(log, "ready")
    time.sleep(0.2)  # from the line that says so into the call
    stacks = stacks_of(process.pid, log, TIMEOUT_S)
    assert "in stuck" in stacks
    assert "ready" not in stacks
    assert process.poll() is None  # it is none the worse for it
    assert "in stuck" in stacks_of(process.pid, log, TIMEOUT_S)


def test_a_process_that_is_gone_tells_nothing(start: Start, log: Path) -> None:
    process = start("print('ready')")
    process.wait(TIMEOUT_S)
    assert stacks_of(process.pid, log, 1) == ""


def test_of_a_long_log_both_ends_are_kept(log: Path) -> None:
    log.write_text("a" * 50 + "b" * 1000 + "c" * 50)
    kept = read_log(log, 100)
    assert kept == "a" * 50 + "\n[1,000 characters left out]\n" + "c" * 50


def test_a_log_that_is_not_there_is_empty(log: Path) -> None:
    assert read_log(log, 100) == ""
