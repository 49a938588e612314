"""Checkpoints before anything runs: where a file lies, and the digest of it."""

import hashlib
import stat
from functools import lru_cache
from pathlib import Path

from tlbench.errors import SuiteError
from tlbench.suites.paths import local_path, resolve_path
from tlbench.suites.training import Checkpoint


def resolve_checkpoint(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Give the checkpoint its whole path and its digest, where its file is here.

    Paths are relative to `folder`. A URL, or a whole path with nothing at it, is left
    as it is: the workers may have it.

    Raises:
        SuiteError: It is no file or cannot be read, or is another than the suite was
            made for, or the URL holds a password.
    """
    named = local_path(checkpoint.path)
    path = Path(resolve_path(checkpoint.path, folder))
    if named is None:
        return checkpoint
    try:
        if named.is_absolute() and not path.exists():
            return checkpoint
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SuiteError(f"{path} is no file: a folder, a pipe or a device")
        digest = _digest(path, status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise SuiteError(
            f"there is no file {path}; one that only the workers have is named by its"
            " whole path"
        ) from error
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    changed = why_another(checkpoint, digest)
    if changed is not None:
        raise SuiteError(f"{path} {changed}")
    return checkpoint.model_copy(update={"path": str(path), "sha256": digest})


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def why_another(checkpoint: Checkpoint, digest: str) -> str | None:
    """Why a file of this digest is not the checkpoint; None: it is."""
    if checkpoint.sha256 in (None, digest):
        return None
    return (
        f"has changed: its SHA-256 is {digest}, and the suite was made for"
        f" {checkpoint.sha256}"
    )


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    """That of the file as it is now: many cases name the same gigabytes."""
    return sha256_of(path)
