"""Who drives a run: one process of one machine, told from all others."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Driver:
    """A process that drives a run."""

    uid: str
    """Of this drive alone: a process that drives two runs has two."""
    host: str
    boot_id: str | None
    """Of the machine since it was started; None: not Linux."""
    pid_namespace: str | None
    """Processes of one container share it; None: not Linux."""
    pid: int
    started_at: float
    """When the process began, in seconds since the epoch."""

    @classmethod
    def here(cls) -> Self:
        """This process."""
        return cls(
            uid=uuid4().hex,
            host=platform.node(),
            boot_id=_text(BOOT_ID),
            pid_namespace=_link(PID_NAMESPACE),
            pid=os.getpid(),
            started_at=psutil.Process().create_time(),
        )

    def is_alive(self) -> bool | None:
        """Whether its process is still there; None: that cannot be told from here."""
        here = Driver.here()
        if self.boot_id is None or self._processes != here._processes:
            return None
        try:
            process = psutil.Process(self.pid)
            is_it = process.create_time() == self.started_at
            return is_it and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def _processes(self) -> tuple[str | None, ...]:
        """What is the same for all processes that can see each other."""
        return self.host, self.boot_id, self.pid_namespace

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _link(file: Path) -> str | None:
    try:
        return str(file.readlink())
    except OSError:
        return None
