"""Builders before anything runs: files, functions and options, each mistake told."""

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from pydantic import ValidationError

from tlbench.errors import SuiteError
from tlbench.suites import sources
from tlbench.suites.model_spec import OWN_BUILDERS, BuilderSpec
from tlbench.suites.names import parse_model
from tlbench.suites.sources import Sources

PLAIN = "def build(model, keep=64):\n    return model\n"


def resolve(folder: Path, name: str) -> BuilderSpec:
    builder = Sources(folder).resolve(parse_model(name)).builder
    assert builder is not None
    return builder


def problem(folder: Path, name: str, source: str | bytes | None = None) -> str:
    """What is wrong with a builder, behind the name of its model."""
    if source is not None:
        data = source.encode() if isinstance(source, str) else source
        (folder / "my.py").write_bytes(data)
    with pytest.raises(SuiteError) as caught:
        resolve(folder, name)
    before, colon, why = str(caught.value).partition(" cannot be built: ")
    assert before.startswith("'ViT-B/16+")
    assert colon
    return why


def test_a_model_without_builder_needs_nothing(tmp_path: Path) -> None:
    model = parse_model("ViT-B/16+TL8@6")
    assert Sources(tmp_path / "missing").resolve(model) is model


def test_a_users_file_gives_its_digest_and_its_text(tmp_path: Path) -> None:
    text = f"# ä\r\n{PLAIN}"  # every byte counts, line ends as well
    (tmp_path / "my.py").write_bytes(text.encode())
    found = Sources(tmp_path)
    builder = found.resolve(parse_model("my.py:build(keep=3)")).builder
    assert builder is not None
    assert builder.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert builder.options == {"keep": 3}
    assert found.texts == {"my.py": text}


def test_a_file_is_found_relative_to_the_folder_or_by_its_whole_path(
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "my.py").write_text(PLAIN)
    for name in (
        "models/my.py",
        "./models/../models/my.py",
        f"{tmp_path}/models/my.py",
    ):
        assert resolve(tmp_path, f"{name}:build").sha256


def test_a_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(PLAIN)
    found = Sources(tmp_path)
    first = found.resolve(parse_model("my.py:build"))
    (tmp_path / "my.py").write_text(PLAIN + "# edited meanwhile\n")
    assert found.resolve(parse_model("my.py:build")) == first


def test_no_code_of_a_users_file_runs(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("raise SystemExit('it ran')\n" + PLAIN)
    assert resolve(tmp_path, "my.py:build").sha256


def test_a_missing_file_is_told_with_the_path_that_was_tried(tmp_path: Path) -> None:
    why = problem(tmp_path, "my.py:build")
    assert why == f"there is no file {tmp_path}/my.py"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "my.py").mkdir()
    why = problem(tmp_path, "my.py:build")
    assert why == f"{tmp_path}/my.py cannot be read: Is a directory"


def test_a_missing_function_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    assert problem(tmp_path, "my.py:biuld", PLAIN) == (
        "my.py defines no function 'biuld' at its top level; did you mean 'build'?"
    )


@pytest.mark.parametrize(
    "source", ["", "class build: ...", "if 1:\n    def build(model): ..."]
)
def test_only_a_function_at_the_top_level_counts(tmp_path: Path, source: str) -> None:
    assert problem(tmp_path, "my.py:build", source) == (
        "my.py defines no function 'build' at its top level"
    )


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    why = problem(tmp_path, "my.py:build", PLAIN + "\nx = = 3\n")
    assert why == "my.py:4 is not Python: invalid syntax"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (b"x = 1\n# \xff\n", "my.py:2 is not UTF-8 text"),
        (b"#" * (sources.MAX_SIZE + 1), "my.py is larger than 1 MiB, which no builder"),
        ("x = " + "(" * 300 + ")" * 300, "my.py:1 is not Python: too many nested"),
        ("x = " + "-" * 100_000 + "1", "my.py is not Python: "),
    ],
)
def test_what_is_no_python_file_is_refused(
    tmp_path: Path, source: str | bytes, why: str
) -> None:
    assert problem(tmp_path, "my.py:build", source).startswith(why)


def test_a_null_character_is_no_python(tmp_path: Path) -> None:
    why = problem(tmp_path, "my.py:build", b"x = '\0'\n")
    assert why.endswith(" is not Python: source code string cannot contain null bytes")


def test_a_mark_at_the_begin_of_a_file_is_no_python_but_counts_for_the_digest(
    tmp_path: Path,
) -> None:
    data = b"\xef\xbb\xbf" + PLAIN.encode()
    (tmp_path / "my.py").write_bytes(data)
    found = Sources(tmp_path)
    builder = found.resolve(parse_model("my.py:build")).builder
    assert builder is not None
    assert builder.sha256 == hashlib.sha256(data).hexdigest()
    assert found.texts == {"my.py": PLAIN}


def test_warnings_about_a_users_code_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(PLAIN + "x = '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(tmp_path, "my.py:build").sha256


def test_a_pipe_without_a_writer_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.py")
    with pytest.raises(SuiteError, match=r"mine\.py defines no function 'build'"):
        Sources(tmp_path).resolve(parse_model("mine.py:build"))


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "my.py").symlink_to("my.py")
    why = problem(tmp_path, "my.py:build")
    assert why.startswith(f"{tmp_path}/my.py cannot be read: Too many levels of symb")


@pytest.mark.parametrize("file", ["a\0.py", "a\n.py", " a.py"])
def test_the_name_of_a_file_can_be_printed(file: str) -> None:
    with pytest.raises(ValidationError, match="is not a name: it has blanks at an end"):
        BuilderSpec(function="build", file=file)


def test_a_file_of_the_largest_size_is_taken(tmp_path: Path) -> None:
    source = PLAIN + "#" * (sources.MAX_SIZE - len(PLAIN))
    (tmp_path / "my.py").write_text(source)
    assert resolve(tmp_path, "my.py:build").sha256


@pytest.mark.parametrize(
    ("parameters", "options", "why"),
    [
        ("model, keep=64", "kep=3", "takes no option 'kep'; did you mean 'keep'?"),
        ("model", "keep=3", "takes no option 'keep'"),
        ("model, keep", "", "needs keep=..."),
        ("model, *, keep, place=3, step", "step=2", "needs keep=..."),
        ("model, keep, place", "", "needs keep=..., place=..."),
        ("model, keep, **others", "place=3", "needs keep=..."),
        ("model, keep", "model=3,keep=3", "takes no option 'model'"),
    ],
)
def test_options_that_do_not_fit_are_told(
    tmp_path: Path, parameters: str, options: str, why: str
) -> None:
    source = f"def build({parameters}):\n    return model\n"
    name = f"my.py:build({options})" if options else "my.py:build"
    assert problem(tmp_path, name, source) == f"build() {why}"


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("model, keep=64", ""),
        ("model, keep", "keep=3"),
        ("model, /, keep, *, place=3", "keep=3,place=4"),
        ("model, **options", "anything=3"),
        ("*models, keep", "keep=3"),
    ],
)
def test_options_that_fit_are_taken(
    tmp_path: Path, parameters: str, options: str
) -> None:
    (tmp_path / "my.py").write_text(f"def build({parameters}): ...\n")
    name = f"my.py:build({options})" if options else "my.py:build"
    assert resolve(tmp_path, name).sha256


def test_a_decorator_may_change_what_a_function_takes(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(f"@decorate\n{PLAIN}")
    assert resolve(tmp_path, "my.py:build(place=3)").sha256


def test_a_builder_has_to_take_the_model(tmp_path: Path) -> None:
    source = "\ndef build(*, keep=3): ...\n"
    assert problem(tmp_path, "my.py:build", source) == (
        "my.py:2: build() does not take the model, which comes first"
    )


def test_an_option_behind_the_model_has_to_have_a_name(tmp_path: Path) -> None:
    source = "def build(model, keep, place, /, step): ...\n"
    assert problem(tmp_path, "my.py:build(step=3)", source) == (
        "my.py:1: build() takes keep, place by position only, and options are given by"
        " name"
    )
    source = "def build(model, keep=3, /, step=2): ...\n"
    why = problem(tmp_path, "my.py:build(keep=3)", source)
    assert why == "build() takes no option 'keep'; did you mean 'step'?"
    assert resolve(tmp_path, "my.py:build(step=3)").sha256


def test_a_file_that_was_edited_since_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(PLAIN)
    model = Sources(tmp_path).resolve(parse_model("my.py:build"))
    assert Sources(tmp_path).resolve(model) == model
    (tmp_path / "my.py").write_text(PLAIN + "\n")
    with pytest.raises(SuiteError, match=r"my\.py has changed: its SHA-256 is"):
        Sources(tmp_path).resolve(model)


@pytest.mark.parametrize(
    "name",
    [
        "tome(r=8)",
        "random(keep=49,place=3)",
        "stride(step=2,place=3)",
        "fixed(tokens=8,place=3)",
    ],
)
def test_own_builders_are_taken(tmp_path: Path, name: str) -> None:
    builder = resolve(tmp_path, f"ViT-B/16+{name}")
    assert builder.function in OWN_BUILDERS
    assert (builder.file, builder.sha256) == (None, None)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "tomee(r=8)",
            "'tomee' is not one of tlbench's builders, tome, random, stride, fixed;"
            " did you mean 'tome'?",
        ),
        (
            "zzz",
            "'zzz' is not one of tlbench's builders, tome, random, stride, fixed; one"
            " of yours names its file, as in +my_models.py:zzz",
        ),
        ("tome", "tome() needs r=..."),
        ("tome(R=8)", "tome() takes no option 'R'; did you mean 'r'?"),
        ("random(keep=49)", "random() needs place=..."),
    ],
)
def test_own_builders_that_are_not_there_are_told(
    tmp_path: Path, name: str, why: str
) -> None:
    assert problem(tmp_path, f"ViT-B/16+{name}") == why


@pytest.mark.parametrize(
    ("name", "call", "right"),
    [
        ("tome(r=-1)", "tome(r=-1)", "a whole number from 0 to 65536"),
        ("tome(r=2.5)", "tome(r=2.5)", "a whole number from 0 to 65536"),
        ("tome(r=true)", "tome(r=true)", "a whole number from 0 to 65536"),
        ("random(keep=0,place=3)", "random(keep=0)", "a whole number from 1 to 196"),
        (
            "random(keep=197,place=3)",
            "random(keep=197)",
            "a whole number from 1 to 196",
        ),
        (
            "random(keep=8,place=1/2)",
            "random(place=1/2)",
            "the index of a block from 0 to 11",
        ),
        (
            "stride(step=2,place=12)",
            "stride(place=12)",
            "the index of a block from 0 to 11",
        ),
        ("stride(step=0,place=3)", "stride(step=0)", "a whole number from 1 to 65536"),
    ],
)
def test_values_of_own_builders_that_make_no_sense_are_told(
    tmp_path: Path, name: str, call: str, right: str
) -> None:
    why = problem(tmp_path, f"ViT-B/16+{name}")
    assert why == f"{call} makes no sense: {right} would be right"


@pytest.mark.parametrize(
    "name",
    [
        "ViViT-B/16x2+random(keep=3136,place=0)",
        "ViT-B/16[2]+stride(step=14,place=1)",
        "ViT-B/16:token+tome(r=0)",
    ],
)
def test_the_ends_of_what_makes_sense_are_taken(tmp_path: Path, name: str) -> None:
    assert resolve(tmp_path, name).function in OWN_BUILDERS


@pytest.mark.parametrize(
    "part", ["ViT-B/16+TL8@6", "ViT-B/16+pool2@6", "ViViT-B/16x2:attention"]
)
def test_own_builders_take_plain_blocks_only(tmp_path: Path, part: str) -> None:
    with pytest.raises(SuiteError, match=r"tome\(\) takes a plain ViT or joint ViViT"):
        resolve(tmp_path, f"{part}+tome(r=8)")


def test_files_are_parsed_without_torch() -> None:
    code = "import sys; import tlbench.suites.sources; print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
