"""Braces in texts, expanded as in a shell: `TL{8,16}@{0..2}`."""

import re

from tlbench.errors import SuiteError

MAX_NAMES = 10_000
"""Most names that one text may expand to."""
MAX_LENGTH = 500
"""Most characters of a name, braces included."""

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?", re.ASCII)


def expand_braces(text: str) -> list[str]:
    """All texts that a shell would make of one with braces, in the shell's order."""
    check_length(text)
    _check_braces(text)
    try:
        return _expand(text)
    except OverflowError as error:
        raise SuiteError(f"{text!r} expands to more than {MAX_NAMES} names") from error


def check_length(text: str) -> None:
    """Refuse a text that is longer than any name."""
    if len(text) > MAX_LENGTH:
        raise SuiteError(
            f"'{text[:40]}...' cannot be built: it has more than"
            f" {MAX_LENGTH} characters"
        )


def _check_braces(text: str) -> None:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0 or depth > 10:
            break
    if depth:
        raise SuiteError(
            f"{text!r} cannot be expanded: its braces"
            f" {'do not match' if depth <= 10 else 'are nested deeper than 10'};"
            " ViT-B/16+TL{8,16}@6 would be right"
        )


def _expand(text: str) -> list[str]:
    """Raises OverflowError before there are too many."""
    start = text.find("{")
    if start < 0:
        return [text]
    end = _closing_brace(text, start)
    middles = _alternatives(text[start + 1 : end])
    tails = _expand(text[end + 1 :])
    if len(middles) * len(tails) > MAX_NAMES:
        raise OverflowError
    return [text[:start] + middle + tail for middle in middles for tail in tails]


def _alternatives(inside: str) -> list[str]:
    """What one pair of braces stands for."""
    numbers = _RANGE.fullmatch(inside)
    if numbers is not None:
        return _number_range(numbers)
    items = _split_commas(inside)
    if len(items) == 1:  # no comma: the shell leaves the braces as they are
        return [f"{{{item}}}" for item in _expand(inside)]
    return [text for item in items for text in _expand(item)]


def _number_range(numbers: re.Match[str]) -> list[str]:
    first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1) or 1
    if abs(last - first) // step >= MAX_NAMES:
        raise OverflowError
    way = 1 if last >= first else -1
    return [str(number) for number in range(first, last + way, way * step)]


def _closing_brace(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced braces in {text!r}")  # _check_braces came first


def _split_commas(inside: str) -> list[str]:
    """The pieces between the commas that stand in no inner braces."""
    pieces, depth = [""], 0
    for character in inside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces
