"""`tlbench report`: its forms, and its charts as files."""

from pathlib import Path

import pytest

from support.stored_runs import StoredRuns, case, speeds
from tlbench.cli import main
from tlbench.db.store import ResultStore


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A run of a model with TokenLearner and its baseline."""
    location = str(tmp_path / "made.db")
    store = ResultStore.open(location, create=True)
    plain, learned = case("ViT-Ti/16"), case("ViT-Ti/16+TL8@6")
    StoredRuns(store).add((plain, speeds(10, 11, 12)), (learned, speeds(15, 16, 17)))
    store.close()
    return location


def report(
    monkeypatch: pytest.MonkeyPatch, db: str, *arguments: str, fails: bool = False
) -> None:
    monkeypatch.setattr("sys.argv", ["tlbench", "report", *arguments, "--db", db])
    with pytest.raises(SystemExit) as ended:
        main()
    assert bool(ended.value.code) is fails


@pytest.mark.parametrize("name", ["report.md", "REPORT.MD", "report.markdown"])
def test_the_name_of_the_file_says_that_it_is_markdown(
    monkeypatch: pytest.MonkeyPatch, db: str, tmp_path: Path, name: str
) -> None:
    report(monkeypatch, db, str(tmp_path / name))
    assert (tmp_path / name).read_text("utf-8").startswith("### tlbench: made")


def test_a_format_goes_before_the_name(
    monkeypatch: pytest.MonkeyPatch, db: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.txt"
    report(monkeypatch, db, str(file), "--format", "markdown")
    assert file.read_text("utf-8").startswith("### tlbench: made")
    report(monkeypatch, db, str(tmp_path / "report.md"), "--format", "html")
    assert "<!doctype html>" in (tmp_path / "report.md").read_text("utf-8").lower()


def test_markdown_goes_to_standard_output_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
    db: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    report(monkeypatch, db, "-", "--format", "markdown")
    out = capsys.readouterr().out
    assert out.startswith("### tlbench: made")
    assert out.endswith("\n")
    assert not out.endswith("\n\n")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_charts_are_written_beside_the_report(
    monkeypatch: pytest.MonkeyPatch, db: str, tmp_path: Path, kind: str
) -> None:
    figures = tmp_path / "figures"
    arguments = ("--charts", str(figures), "--chart-format", kind)
    report(monkeypatch, db, str(tmp_path / "report.html"), *arguments)
    assert (figures / f"throughput.{kind}").is_file()
    assert {file.suffix for file in figures.iterdir()} == {f".{kind}"}


def test_charts_are_not_written_over_others_without_force(
    monkeypatch: pytest.MonkeyPatch,
    db: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "throughput.svg"
    file.write_text("of somebody")
    arguments = (str(tmp_path / "report.html"), "--charts", str(tmp_path))
    report(monkeypatch, db, *arguments, fails=True)
    assert "throughput.svg is there already" in capsys.readouterr().err
    assert file.read_text() == "of somebody"
    assert not (tmp_path / "report.html").exists()
    report(monkeypatch, db, *arguments, "--force")
    assert file.read_text("utf-8").startswith("<?xml")
