"""Files of a report: written whole or not at all, and never over others by chance."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tlbench.db.connection import is_database
from tlbench.errors import ReportError

Form = Literal["html", "markdown"]
FORMS: dict[str, Form] = {
    "": "html",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
}
"""By what the name of a file ends with."""


def form_of(destination: Path) -> Form:
    """What a file of that name holds."""
    suffix = destination.suffix.lower()
    if suffix not in FORMS:
        known = ", ".join(filter(None, FORMS))
        raise ReportError(
            f"{destination}: no report is written as {suffix}; a name that ends with"
            f" {known} would be right, or --format"
        )
    return FORMS[suffix]


def check_destination(destination: Path) -> None:
    """Raise ReportError where no report could be written; before a run, not after."""
    target = destination.resolve()
    if target.exists() and not target.is_file():
        raise ReportError(f"{destination}: the report needs a file, and this is none")
    if not target.parent.is_dir():
        raise ReportError(f"{destination}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ReportError(f"{destination}: {target.parent} cannot be written to")
    keep_database(target)


def keep_database(destination: Path) -> None:
    """Raise ReportError where a database would be written over."""
    try:
        is_taken = is_database(destination)
    except OSError as error:
        raise ReportError(f"{destination}: {error.strerror}") from error
    if is_taken:
        raise ReportError(
            f"{destination} is a database, and stays; another name would be right"
        )


def write_whole(destination: Path, content: bytes) -> None:
    """Write beside the destination first, so that no half of it is ever seen."""
    target = destination.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ReportError(
            f"{destination}: it cannot be written there: {error.strerror}"
        ) from error


def write_folder(
    folder: Path, files: Mapping[str, bytes], *, is_forced: bool = False
) -> list[Path]:
    """Write files by their names; all that is in the way is told before any is written.

    Args:
        folder: Made if it is not there.
        files: The content of each file.
        is_forced: Whether other files of these names may be written over.
    """
    paths = {folder / name: content for name, content in files.items()}
    if not is_forced:
        for path, content in paths.items():
            _check_free(path, content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: is no folder: {error.strerror}") from error
    for path, content in paths.items():
        write_whole(path, content)
    return list(paths)


def _check_free(path: Path, content: bytes) -> None:
    """Raise ReportError where something else stands; the same may be written again."""
    if not path.exists():
        return
    if not path.is_file() or path.read_bytes() != content:
        raise ReportError(
            f"{path} is there already and differs: another folder, or --force to write"
            " over it"
        )
