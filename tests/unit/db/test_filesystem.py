"""Network file systems: which are told, and what the store does there."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tlbench.db import filesystem, query
from tlbench.db.filesystem import network_file_system
from tlbench.db.store import ResultStore

LINE = "36 35 98:0 /export {point} rw,noatime master:1 - {kind} server:/export rw\n"


@pytest.fixture
def mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path | str, str], None]:
    """Pretend that a kind of file system is mounted somewhere."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(LINE.format(point="/", kind="ext4"))
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)

    def mount(point: Path | str, kind: str) -> None:
        with mounts.open("a") as file:
            file.write(LINE.format(point=str(point).replace(" ", r"\040"), kind=kind))

    return mount


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "beegfs", "fuse.sshfs"])
def test_innermost_mount_tells(
    mount: Callable[[Path | str, str], None], tmp_path: Path, kind: str
) -> None:
    mount(tmp_path / "home", kind)
    mount(tmp_path / "home/me/local disk", "xfs")
    assert network_file_system(tmp_path / "home/results.db") == kind
    assert network_file_system(tmp_path / "home/me/results.db") == kind
    assert network_file_system(tmp_path / "home/me/local disk/results.db") is None
    assert network_file_system(tmp_path / "homely/results.db") is None


def test_later_mount_hides_an_earlier_one_at_the_same_place(
    mount: Callable[[Path | str, str], None], tmp_path: Path
) -> None:
    mount(tmp_path, "autofs")
    mount(tmp_path, "nfs")
    assert network_file_system(tmp_path / "results.db") == "nfs"


def test_link_is_followed(
    mount: Callable[[Path | str, str], None], tmp_path: Path
) -> None:
    mount(tmp_path / "share", "nfs")
    (tmp_path / "share").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "share")
    assert network_file_system(tmp_path / "here/results.db") == "nfs"


def test_nothing_is_claimed_of_other_systems_and_kinds(
    mount: Callable[[Path | str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mount(tmp_path, "fuse.something")
    assert network_file_system(tmp_path / "results.db") is None
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "nowhere")
    assert network_file_system(tmp_path / "results.db") is None


def test_this_folder_is_looked_up(tmp_path: Path) -> None:
    assert network_file_system(tmp_path / "results.db") is None


def test_writer_on_a_network_drive_is_warned_once_and_keeps_no_log(
    mount: Callable[[Path | str, str], None],
    tmp_path: Path,
    begin: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "results.db"
    with ResultStore.open(str(file), create=True) as store:
        begin(store)
    assert (journal(file), caplog.messages) == ("wal", [])
    mount(tmp_path, "nfs4")
    for _ in range(2):
        with ResultStore.open(str(file)) as store:
            begin(store)
            assert not file.with_name("results.db-wal").exists()
    (message,) = caplog.messages
    assert str(file) in message
    assert "(nfs4)" in message
    assert "a file on a local disk, or PostgreSQL" in message
    assert journal(file) == "delete"


def test_reader_on_a_network_drive_is_not_warned(
    mount: Callable[[Path | str, str], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = str(tmp_path / "results.db")
    ResultStore.open(file, create=True).close()
    mount(tmp_path, "nfs4")
    with (
        ResultStore.open(file, read_only=True) as store,
        store.session() as session,
    ):
        assert query.runs(session) == []
    assert caplog.messages == []


def test_file_is_faster_again_once_it_is_on_a_local_disk(
    mount: Callable[[Path | str, str], None], tmp_path: Path
) -> None:
    mount(tmp_path / "share", "cifs")
    (tmp_path / "share").mkdir()
    file = tmp_path / "share" / "results.db"
    ResultStore.open(str(file), create=True).close()
    assert journal(file) == "delete"
    moved = file.rename(tmp_path / "results.db")
    ResultStore.open(str(moved)).close()
    assert journal(moved) == "wal"


def journal(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        (mode,) = database.execute("PRAGMA journal_mode").fetchone()
    return str(mode)
