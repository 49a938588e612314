"""Where data sets lie: what a suite says, and what the user says beside it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tlbench.errors import SuiteError
from tlbench.suites.names import did_you_mean
from tlbench.suites.spec import Case, Suite

DATA_FOLDER = "TLBENCH_DATA"
"""Environment variable: a folder that holds the folder NAME/ of the data set NAME."""


def resolve_path(path: str, folder: Path = Path()) -> str:
    """The whole path of one that is relative to `folder`; a URL is left as it is.

    Raises:
        SuiteError: The URL holds a password, which is no thing to keep; or the path
            begins at the home of nobody.
    """
    if re.search(r"://[^/@:]*:[^/@]*@", path):
        raise SuiteError(
            "the URL holds a password, which would be stored with the results; fsspec"
            " takes it from its own configuration too"
        )
    named = local_path(path)
    return path if named is None else str((folder / named).absolute())


def local_path(path: str) -> Path | None:
    """What a path, or a URL of fsspec, names on this machine; None: it is elsewhere.

    Raises:
        SuiteError: It begins at the home of a user whom this machine does not know.
    """
    for protocol in ("file://", "local://"):
        path = path.removeprefix(protocol)
    if "://" in path or "::" in path:
        return None
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = path.partition("/")[0]
        raise SuiteError(
            f"{home!r} is nobody's home on this machine; ./{home} is a folder of that"
            " name"
        ) from error


def parse_paths(words: Iterable[str]) -> dict[str, str]:
    """The path of each data set from words such as `imagenet-1k=/data/imagenet`.

    Raises:
        ValueError: A word is not of that form.
    """
    paths: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not name or not path:
            raise ValueError(f"{word!r} is not of the form NAME=PATH")
        if name in paths:
            raise ValueError(f"{name} has two paths")
        paths[name] = resolve_path(path)
    return paths


def data_path(case: Case, paths: Mapping[str, str]) -> str | None:
    """Where the data of the case lie; None where it reads none from a path."""
    return paths.get(case.data) if _reads_a_path(case) else None


def locate_data(
    suite: Suite, given: Mapping[str, str], folder: Path | None, *, is_here: bool
) -> Suite:
    """The suite with a path for each data set that its cases read.

    Args:
        suite: Its own paths come next after those `given`.
        given: Whole paths by the names of data sets.
        folder: Holds folders that are called as data sets are; asked last.
        is_here: Whether it will run on this machine, where the paths are to exist.

    Raises:
        SuiteError: A data set has no path or a URL, or a path no data set.
    """
    wanted = list(dict.fromkeys(c.data for c in suite.cases if _reads_a_path(c)))
    for name in given:
        if name not in wanted:
            raise SuiteError(
                f"--data {name}: no case reads it from a path;"
                f" {', '.join(wanted) or 'none'} would do{did_you_mean(name, wanted)}"
            )
    paths = _held_by(folder, wanted) | suite.paths | dict(given)
    missing = [why_no_path(name) for name in wanted if name not in paths]
    for name in wanted:
        path = local_path(paths[name]) if name in paths else Path()
        if path is None:
            missing.append(
                f"data {name}: {paths[name]} is a URL, and data sets are read from"
                " files; a folder that it is mounted at would do"
            )
        elif is_here and not path.exists():
            missing.append(f"data {name}: there is nothing at {path}")
    if missing:
        raise SuiteError("\n".join(missing))
    return suite.model_copy(update={"paths": paths})


def why_no_path(name: str) -> str:
    """What to say where a data set that does not come with tlbench has no path."""
    return (
        f"data {name}: nobody says where it lies; --data {name}=PATH would, or paths:"
        f" {{{name}: PATH}} in the suite, or {DATA_FOLDER} with a folder {name} in it"
    )


def _reads_a_path(case: Case) -> bool:
    return case.mode != "profile" and not case.data_info.is_embedded


def _held_by(folder: Path | None, names: Iterable[str]) -> dict[str, str]:
    if folder is None:
        return {}
    whole = folder.expanduser().absolute()
    return {name: str(whole / name) for name in names if (whole / name).is_dir()}
