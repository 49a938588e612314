"""Folders on disks and elsewhere: files are there whole or not at all."""

from pathlib import Path

import pytest

from tlbench.storage import Folder, check_storage


@pytest.fixture(params=["folder", "URL"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    url = str(tmp_path) if request.param == "folder" else f"memory://{tmp_path}"
    return Folder(url, "inner")


def write(folder: Folder, name: str, content: bytes) -> None:
    with folder.writing(name) as file:
        file.write(content)


def test_a_file_is_read_as_it_was_written(folder: Folder) -> None:
    write(folder, "a/b", b"12345")
    assert folder.read("a/b") == b"12345"
    with folder.reading("a/b") as file:
        file.seek(3)
        assert file.read() == b"45"


def test_writing_again_replaces_the_file(folder: Folder) -> None:
    write(folder, "a", b"first")
    write(folder, "a", b"2nd")
    assert folder.read("a") == b"2nd"


def test_names_are_those_of_files_and_folders_inside(folder: Folder) -> None:
    assert folder.names() == []
    write(folder, "b/c", b"")
    write(folder, "a", b"")
    assert folder.names() == ["a", "b"]
    folder.remove("b")
    assert folder.names() == ["a"]
    assert (folder.has("a"), folder.has("b/c")) == (True, False)


def test_what_was_not_written_to_its_end_does_not_have_its_name(
    folder: Folder,
) -> None:
    write(folder, "a", b"whole")

    def write_half() -> None:
        with folder.writing("a") as file:
            file.write(b"ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert folder.read("a") == b"whole"


def test_a_url_that_nothing_can_open_is_told() -> None:
    with pytest.raises(ValueError, match=r"'nowhere://x' cannot be opened \(Protocol"):
        check_storage("nowhere://x")


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="the URL holds a password") as caught:
        check_storage("ftp://me:s3cret@host/runs")
    assert "s3cret" not in str(caught.value)
