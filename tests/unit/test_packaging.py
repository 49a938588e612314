"""The package map of pyproject.toml against the folders on disk."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text())
    settings: dict[str, Any] = loaded["tool"]["setuptools"]
    return settings


def packages_on_disk(folders: dict[str, str]) -> set[str]:
    """Folders with Python code, by the name under which they are imported."""
    return {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for package, folder in folders.items()
        for path in (ROOT / folder).rglob("*.py")
    }


def test_every_folder_with_code_is_in_the_list_of_packages(
    settings: dict[str, Any],
) -> None:
    assert len(settings["packages"]) == len(set(settings["packages"]))
    assert set(settings["packages"]) == packages_on_disk(settings["package-dir"])


def test_every_package_has_an_init_that_says_its_one_job(
    settings: dict[str, Any],
) -> None:
    for folder in settings["package-dir"].values():
        for path in (ROOT / folder).rglob("*.py"):
            first = (path.parent / "__init__.py").read_text()
            assert first.startswith('"""'), path.parent


def test_every_file_that_is_no_code_is_packaged(settings: dict[str, Any]) -> None:
    folders = settings["package-dir"]
    packaged = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in _folder(package, folders).glob(pattern)
    }
    data = {
        path
        for folder in folders.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data <= packaged


def _folder(package: str, folders: dict[str, str]) -> Path:
    """Where a package lies: below the longest name that the map has."""
    known = max(
        (name for name in folders if f"{package}.".startswith(f"{name}.")), key=len
    )
    return ROOT.joinpath(folders[known], *package.removeprefix(known).split(".")[1:])
