"""Whether a file lies on a file system that other hosts share."""

import re
from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
"""Every mount, a line each; https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p"),
        *("lustre", "beegfs", "gpfs", "ceph", "glusterfs", "pvfs2", "wekafs", "panfs"),
        *("fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.rclone", "fuse.goofys", "fuse.juicefs", "fuse.mount-s3"),
    }
)
"""As the kernel calls them; of others nothing is claimed."""


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that holds `path`; None: none that is known."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
        place = path.resolve()
    except OSError:  # no Linux, or a folder that may not be entered
        return None
    holding = [mount for mount in _mounts(lines) if place.is_relative_to(mount[0])]
    # The innermost mount, and of several at one place the latest, which hides others.
    _, kind = max(
        reversed(holding), key=lambda mount: len(mount[0].parts), default=(None, None)
    )
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def _mounts(lines: list[str]) -> Iterator[tuple[Path, str]]:
    """Mount point and kind of each: the fifth field, and the first after the dash."""
    for line in lines:
        before, dash, after = line.partition(" - ")
        if dash:
            yield Path(_unescaped(before.split(" ")[4])), after.split(" ")[0]


def _unescaped(text: str) -> str:
    r"""Blanks, tabs, line ends and backslashes stand there as `\040` and such."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
