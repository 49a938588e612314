"""Where data sets lie: who says so, in which order, and what is refused at once."""

from pathlib import Path

import pytest

from tlbench.errors import SuiteError
from tlbench.plan import make_trial
from tlbench.suites.names import parse_model
from tlbench.suites.paths import data_path, locate_data, parse_paths, resolve_path
from tlbench.suites.spec import Case, Mode, Suite

MODEL = parse_model("ViT-d16h2m32l2/4@8")


def make_suite(
    *data: str,
    paths: dict[str, str] | None = None,
    mode: Mode = "train",
    storage: str | None = None,
) -> Suite:
    return Suite(
        name="some",
        cases=tuple(Case(model=MODEL, mode=mode, data=name) for name in data),
        repeats={mode: 1},
        paths=paths or {},
        storage=storage,
    )


def test_paths_are_words_with_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    words = ["mnist=/data/mnist", "mine=data/k=2", "far=s3://bucket/a=b"]
    assert parse_paths(words) == {
        "mnist": "/data/mnist",
        "mine": "/data/k=2",
        "far": "s3://bucket/a=b",
    }


@pytest.mark.parametrize("word", ["mnist", "mnist=", "=/data"])
def test_a_word_without_name_or_path_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"'{word}' is not of the form NAME=PATH"):
        parse_paths([word])


def test_a_data_set_has_one_path() -> None:
    with pytest.raises(ValueError, match="mnist has two paths"):
        parse_paths(["mnist=/a", "mnist=/b"])


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path("~/data", Path("/suites")) == "/home/someone/data"


def test_a_url_with_a_password_is_refused() -> None:
    with pytest.raises(SuiteError, match="the URL holds a password"):
        resolve_path("sftp://me:secret@host/data")
    assert resolve_path("sftp://me@host/data") == "sftp://me@host/data"


def test_a_url_of_a_million_colons_is_read_at_once() -> None:
    url = "s3://" + ":" * 1_000_000
    assert resolve_path(url) == url


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(SuiteError, match=r"^'~nobody-here' is nobody's home on"):
        resolve_path("~nobody-here/data")


def test_the_option_comes_first_then_the_suite_then_the_folder(tmp_path: Path) -> None:
    names = ("mnist", "fashion-mnist", "imagenet-1k")
    for name in names:
        (tmp_path / "held" / name).mkdir(parents=True)
    for name in ("given", "said"):
        (tmp_path / name).mkdir()
    given, said = str(tmp_path / "given"), str(tmp_path / "said")
    suite = make_suite(*names, paths={"mnist": said, "fashion-mnist": said})
    located = locate_data(suite, {"mnist": given}, tmp_path / "held", is_here=True)
    assert located.paths == {
        "mnist": given,
        "fashion-mnist": said,
        "imagenet-1k": str(tmp_path / "held/imagenet-1k"),
    }


def test_all_data_sets_without_a_path_are_told_at_once() -> None:
    suite = make_suite("mnist", "digits", "imagenet-1k", "mnist")
    with pytest.raises(SuiteError) as caught:
        locate_data(suite, {}, None, is_here=True)
    first, second = str(caught.value).split("\n")
    assert first == (
        "data mnist: nobody says where it lies; --data mnist=PATH would, or paths:"
        " {mnist: PATH} in the suite, or TLBENCH_DATA with a folder mnist in it"
    )
    assert second.startswith("data imagenet-1k: nobody says where it lies")


def test_a_path_with_nothing_at_it_is_told_where_the_run_is_here() -> None:
    suite = make_suite("mnist", paths={"mnist": "/nowhere/mnist"})
    with pytest.raises(SuiteError, match="data mnist: there is nothing at /nowhere"):
        locate_data(suite, {}, None, is_here=True)
    assert locate_data(suite, {}, None, is_here=False).paths == suite.paths


@pytest.mark.parametrize("is_here", [True, False])
def test_a_url_is_refused(is_here: bool) -> None:
    suite = make_suite("mnist", paths={"mnist": "s3://bucket/mnist"})
    with pytest.raises(SuiteError, match=r"s3://bucket/mnist is a URL, .* mounted at"):
        locate_data(suite, {}, None, is_here=is_here)


def test_a_path_for_data_that_no_case_reads_is_refused() -> None:
    suite = make_suite("mnist", "digits", paths={"mnist": "/"})
    with pytest.raises(SuiteError, match="mnist would do; did you mean 'mnist'"):
        locate_data(suite, {"mnsit": "/"}, None, is_here=True)
    with pytest.raises(SuiteError, match="--data digits: no case reads it from a path"):
        locate_data(suite, {"digits": "/"}, None, is_here=True)


def test_a_profile_reads_no_data() -> None:
    suite = make_suite("imagenet-1k", mode="profile")
    assert locate_data(suite, {}, None, is_here=True) == suite
    assert data_path(suite.cases[0], {"imagenet-1k": "/data"}) is None


def test_a_trial_is_told_where_its_data_lie() -> None:
    suite = make_suite("mnist", "digits", paths={"mnist": "/m", "digits": "/d"})
    trials = [make_trial(suite, case, 0, 0) for case in suite.cases]
    assert [trial.data_path for trial in trials] == ["/m", None]


@pytest.mark.parametrize(("mode", "kept"), [("fit", "/kept"), ("train", None)])
def test_only_training_to_accuracy_keeps_checkpoints(
    mode: Mode, kept: str | None
) -> None:
    suite = make_suite("digits", mode=mode, storage="/kept")
    assert make_trial(suite, suite.cases[0], 0, 0).storage == kept
