"""The log of a rank's process: what it prints, and on request where it is.

A process that hangs, even inside a C call, still writes its stacks when it is sent
SIGUSR1; that is how somebody else on its machine finds out.
"""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO, cast

LOOK_AGAIN_S = 0.1
STACKS = signal.SIGUSR1


def log_to(path: Path) -> None:
    """Send what this process and its children print to a file, and stacks on request.

    Python's own streams are written line by line from now on.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    # Ray has put streams of its own in their place, which write elsewhere.
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    dump_stacks_on_request()


def dump_stacks_on_request() -> None:
    """Write the stacks of all threads to stderr whenever `STACKS` is sent."""
    faulthandler.register(STACKS, file=2, all_threads=True, chain=False)


def _stream(descriptor: int) -> TextIO:
    return cast(
        "TextIO",
        os.fdopen(
            descriptor,
            "w",
            buffering=1,
            encoding="utf-8",
            errors="backslashreplace",
            closefd=False,
        ),
    )


def read_log(path: Path, limit_chars: int) -> str:
    """What was printed; of more than the limit the beginning and the end.

    Nothing where there is no such file.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    left_out = len(text) - limit_chars
    if left_out <= 0:
        return text
    half = limit_chars // 2
    return f"{text[:half]}\n[{left_out:,} characters left out]\n{text[-half:]}"


def stacks_of(pid: int, path: Path, timeout_s: float) -> str:
    """Ask a process of this machine, which logs to `path`, for its stacks.

    Waits until it has written them; nothing where it is gone or does not within the
    time.
    """
    try:
        before = path.stat().st_size
        os.kill(pid, STACKS)
    except (ProcessLookupError, FileNotFoundError):
        return ""
    deadline, size = time.monotonic() + timeout_s, before
    while time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_S)
        last, size = size, path.stat().st_size
        if size == last != before:
            break
    with path.open("rb") as file:
        file.seek(before)
        return file.read().decode("utf-8", errors="replace")
