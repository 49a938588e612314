"""Folders that a run keeps things in: on a disk, or where fsspec gets to by a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

ASIDE = ".part"
"""Ends the name of a file that is not whole yet."""


def check_storage(url: str) -> None:
    """Refuse what no folder can be opened by.

    Raises:
        ValueError: No file system that fsspec knows, or can load, is named so; or the
            URL holds a password, which the database would keep with the suite.
    """
    if "@" in url and urlsplit(url).password is not None:
        raise ValueError(
            "the URL holds a password, which the results would keep; fsspec takes one"
            " from the environment too: FSSPEC_FTP_PASSWORD for ftp://"
        )
    try:
        url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"{url!r} cannot be opened ({error}); a folder, or a URL of a file system"
            " that fsspec has a package for, would be right"
        ) from error


class Folder:
    """A folder whose files are there whole or not at all."""

    def __init__(self, url: str, *names: str) -> None:
        """Name the folder at `url`, or the one that `names` lead to from there."""
        self._files, root = url_to_fs(url)
        self._path = "/".join((root.rstrip("/"), *names))
        self.url = "/".join((url.rstrip("/"), *names))

    def names(self) -> list[str]:
        """What lies in the folder, sorted; nothing where there is no such folder."""
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def has(self, name: str) -> bool:
        self._files.invalidate_cache()
        return bool(self._files.exists(self._at(name)))

    def read(self, name: str) -> bytes:
        content: bytes = self._files.cat_file(self._at(name))
        return content

    def reading(self, name: str) -> IO[bytes]:
        """The file, open and seekable."""
        file: IO[bytes] = self._files.open(self._at(name), "rb")
        return file

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file to be written in one go; it gets its name once it is whole."""
        path = self._at(name)
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._files.open(path + ASIDE, "wb") as file:
            yield file
        self._files.mv(path + ASIDE, path)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        self._files.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"
