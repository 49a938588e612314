"""A PostgreSQL server of a test's own, which listens on a socket in its folder only."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql")
NOBODY = 65534
START_TIMEOUT_S = 30.0


def programs() -> Path | None:
    """The folder of its programs, which Debian keeps off the path; None: not there."""
    newest = max(PROGRAMS.glob("*/bin/pg_ctl"), key=_version, default=None)
    found = newest or shutil.which("pg_ctl")
    return None if found is None else Path(found).parent


def _version(program: Path) -> int:
    return int(program.parts[-3])


class PostgreSQL:
    """A server with data in a folder; it can be killed, and started again."""

    def __init__(self, folder: Path, *, settings: str = "") -> None:
        found = programs()
        if found is None:
            raise FileNotFoundError("there is no PostgreSQL on this machine")
        self._programs, self._folder = found, folder
        self._settings = f"-k {folder} -c listen_addresses='' {settings}"
        # It refuses to run as root.
        self._user = NOBODY if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user, -1)
        self._data = folder / "data"
        arguments = ("-U", "tlbench", "--auth=trust", "--no-sync")
        self._call("initdb", "-D", self._data, *arguments)
        self.start()

    def _call(self, program: str, *arguments: str | Path) -> None:
        # The server keeps what it inherits, so its output must not be a pipe of ours.
        with (self._folder / "log").open("ab") as log:
            subprocess.run(
                (self._programs / program, *arguments),
                check=True,
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start it; after a crash, once its last processes have noticed that."""
        log = self._folder / "server"
        options = ("-D", self._data, "-o", self._settings, "-l", log, "-w")
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self._call("pg_ctl", *options, "start")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def kill(self) -> None:
        """End it as a crash would: its first process, and with it all others."""
        pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)

    def create(self, name: str) -> str:
        """A new, empty database; returns its URL."""
        self._call("createdb", "-h", self._folder, "-U", "tlbench", name)
        return f"postgresql://tlbench@/{name}?host={self._folder}"
