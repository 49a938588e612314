"""Checkpoints before anything runs: paths, digests, identities and what is wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from tlbench.errors import SuiteError
from tlbench.suites import checkpoints
from tlbench.suites.loader import parse_suite, repeat_suite
from tlbench.suites.spec import Case, Trial
from tlbench.suites.training import Checkpoint

WEIGHTS = b"any bytes: they are read on the workers only"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights.npz").write_bytes(WEIGHTS)
    return tmp_path


def case(folder: Path, path: str, more: str = "") -> Case:
    checkpoint = f"checkpoint: {{path: {json.dumps(path)}{more}}}"
    text = f"models: ViT-B/16\nmode: infer\n{checkpoint}\n"
    (only,) = parse_suite(text, "suite.yaml", folder).cases
    return only


def resolved(folder: Path, path: str, more: str = "") -> Checkpoint:
    checkpoint = case(folder, path, more).checkpoint
    assert checkpoint is not None
    return checkpoint


def mistake(folder: Path, path: str, more: str = "") -> str:
    with pytest.raises(SuiteError) as caught:
        resolved(folder, path, more)
    before, _, message = str(caught.value).partition("suite.yaml:3: checkpoint.path: ")
    assert not before
    return message


def test_a_path_is_relative_to_the_suite_and_gets_a_digest(folder: Path) -> None:
    for path in (
        "weights.npz",
        f"{folder}/weights.npz",
        f"file://{folder}/weights.npz",
    ):
        expected = Checkpoint(path=f"{folder}/weights.npz", sha256=DIGEST)
        assert resolved(folder, path) == expected


@pytest.mark.parametrize(
    "path", ["/only/on/the/workers.npz", "s3://bucket/weights.npz", "memory://weights"]
)
def test_what_is_not_on_this_machine_is_left_as_it_is(folder: Path, path: str) -> None:
    assert resolved(folder, path) == Checkpoint(path=path)


def test_a_relative_path_to_nothing_is_told(folder: Path) -> None:
    assert mistake(folder, "weight.npz") == (
        f"there is no file {folder}/weight.npz; one that only the workers have is named"
        " by its whole path"
    )


@pytest.mark.parametrize("path", ["run", "/dev/null"])
def test_a_folder_or_a_device_is_no_checkpoint(folder: Path, path: str) -> None:
    (folder / "run").mkdir()
    expected = f"{folder / path} is no file: a folder, a pipe or a device"
    assert mistake(folder, path) == expected


def test_a_url_with_a_password_is_not_kept(folder: Path) -> None:
    assert "holds a password" in mistake(folder, "https://me:secret@host/weights.npz")


def test_another_file_than_the_suite_was_made_for_is_told(folder: Path) -> None:
    resolved(folder, "weights.npz", f", sha256: {DIGEST}")
    other = "f" * 64
    assert mistake(folder, "weights.npz", f", sha256: {other}") == (
        f"{folder}/weights.npz has changed: its SHA-256 is {DIGEST}, and the suite was"
        f" made for {other}"
    )


def test_a_case_is_identified_by_the_digest_and_not_by_the_path(folder: Path) -> None:
    (folder / "copy.npz").write_bytes(WEIGHTS)
    (folder / "other.npz").write_bytes(WEIGHTS + b"!")
    first, copy, other = (
        case(folder, name).identity for name in ("weights.npz", "copy.npz", "other.npz")
    )
    assert first == copy != other
    plain = parse_suite("{models: ViT-B/16, mode: infer}", "suite.yaml").cases[0]
    assert first != plain.identity


def test_a_file_without_a_digest_is_identified_by_its_path(folder: Path) -> None:
    first, second = (case(folder, path).identity for path in ("s3://a/w", "s3://b/w"))
    assert first != second


def test_a_suite_names_the_same_weights_once(folder: Path) -> None:
    (folder / "copy.npz").write_bytes(WEIGHTS)
    text = (
        "{models: ViT-B/16, mode: infer, checkpoint: {path: [weights.npz, copy.npz]}}"
    )
    assert len(parse_suite(text, "suite.yaml", folder).cases) == 1


def test_a_stored_case_is_read_back_with_its_path(folder: Path) -> None:
    original = case(folder, "weights.npz")
    stored = Case.model_validate_json(json.dumps(original.canonical()))
    assert stored == original
    assert stored.identity == original.identity


def test_a_repeated_trial_names_the_file_and_its_digest(folder: Path) -> None:
    original = case(folder, "weights.npz", ", tubelets: inflation")
    trial = Trial(original, repeat=0, position=0, seed=7)
    text = json.dumps(repeat_suite(trial, 60.0))
    elsewhere = folder / "elsewhere"
    assert parse_suite(text, "repeat", elsewhere).cases == (original,)
    (folder / "weights.npz").write_bytes(b"trained on")
    with pytest.raises(SuiteError, match=r"weights\.npz has changed: its SHA-256 is "):
        parse_suite(text, "repeat", elsewhere)


def test_a_file_is_read_once_and_again_when_it_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def sha256_of(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(checkpoints, "sha256_of", sha256_of)
    text = """
        models: [ViT-B/16, ViT-S/16]
        mode: infer
        checkpoint: {path: weights.npz}
        scales: {a: {batch_size: 1}, b: {batch_size: 2}}
    """
    parse_suite(text, "suite.yaml", folder)
    assert read == [folder / "weights.npz"]
    (folder / "weights.npz").write_bytes(WEIGHTS + b"!")
    parse_suite(text, "suite.yaml", folder)
    assert len(read) == 2


def test_profile_reads_no_checkpoint(folder: Path) -> None:
    text = "{models: ViT-B/16, mode: profile, checkpoint: {path: missing.npz}}"
    assert parse_suite(text, "suite.yaml", folder).cases[0].checkpoint is None
