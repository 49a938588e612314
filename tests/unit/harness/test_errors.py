"""What is told of other people's errors in one line."""

import pytest

from tlbench.errors import LINE_LENGTH, first_line, name_error


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no such file", "no such file"),
        ("no such file\n  in this folder", "no such file"),
        ("\n\nno such file\n", "no such file"),
        ("", ""),
        ("x" * LINE_LENGTH, "x" * LINE_LENGTH),
        ("x" * (LINE_LENGTH + 1), "x" * LINE_LENGTH + " ..."),
    ],
    ids=["one", "two", "blank", "none", "long", "too-long"],
)
def test_first_line_of_an_error(said: str, line: str) -> None:
    assert first_line(ValueError(said)) == line


def test_an_error_is_named_by_its_type() -> None:
    assert name_error(KeyError("depth")) == "KeyError: 'depth'"


def test_an_error_that_says_nothing_is_its_type() -> None:
    assert name_error(TimeoutError()) == "TimeoutError"
