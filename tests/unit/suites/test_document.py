"""YAML text as located values: scalars, merge keys, limits, and where things stand."""

import json
import math

import pytest

from tlbench.errors import SuiteError
from tlbench.suites.document import MAX_SIZE, MAX_VALUES, Value, decode, read_yaml


def read(text: str) -> Value:
    return read_yaml(text, "suite.yaml")


def refusal(text: str) -> str:
    """Why a text is refused, without the name of its file."""
    with pytest.raises(SuiteError) as caught:
        read(text)
    return str(caught.value).removeprefix("suite.yaml:")


# ---------------------------------------------------------------- what a text means


@pytest.mark.parametrize(
    ("text", "content"),
    [
        *(("7", 7), ("-7", -7), ("+7", 7), ("010", 10), ("9" * 100, 10**100 - 1)),
        *(("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-1.5", -1.5)),
        *((".inf", math.inf), ("-.INF", -math.inf)),
        *(("true", True), ("FALSE", False), ("null", None), ("~", None)),
    ],
)
def test_plain_word_is_read_by_yaml_1_2(text: str, content: object) -> None:
    read_back = read(f"key: {text}").plain()["key"]
    assert read_back == content
    assert type(read_back) is type(content)


@pytest.mark.parametrize(
    "text",
    [
        *("on", "off", "yes", "no", "tRUE", "2021-06-21", "1:30", "0x10", "0o10"),
        *("1_000", "1e", "inf", "nan", "+.nan", "٣", "9" * 101),
    ],
)
def test_any_other_plain_word_is_a_text(text: str) -> None:
    assert read(f"key: {text}").plain() == {"key": text}


@pytest.mark.parametrize(
    ("text", "content"),
    [("'7'", "7"), ('"true"', "true"), ("|-\n  null", "null"), (">-\n  1e-3", "1e-3")],
)
def test_quoted_word_is_a_text(text: str, content: str) -> None:
    assert read(f"key: {text}").plain() == {"key": content}


def test_not_a_number_and_minus_zero_are_read() -> None:
    nan, zero = read("[.nan, -0.0]").plain()
    assert math.isnan(nan)
    assert math.copysign(1, zero) == 1  # as 0.0: one case has one identity


def test_json_is_read_as_json() -> None:
    text = '{"a": [1, -2.5e-7, "x: y", null, true], "b": {"c": false, "d": "\\u00e9"}}'
    assert read(text).plain() == json.loads(text)


def test_anchors_are_written_out() -> None:
    assert read("a: &a [1, {b: 2}]\nc: *a").plain()["c"] == [1, {"b": 2}]


def test_merged_keys_come_in_and_own_keys_win() -> None:
    text = """
    - &a {x: 1, y: 1}
    - &b {x: 2, z: 2}
    - {x: 3, <<: *a}
    - {<<: [*a, *b]}
    - {'<<': 4}
    """
    own, several, quoted = read(text).plain()[2:]
    assert own == {"x": 3, "y": 1}
    assert several == {"x": 1, "y": 1, "z": 2}
    assert quoted == {"<<": 4}


# ---------------------------------------------------------------- where it stands


def test_value_knows_its_line_its_path_and_how_it_is_written() -> None:
    timing = read("mode: infer\ntiming:\n  target:\n    1e-2\n").entries["timing"]
    assert (timing.line, timing.key_line, timing.text) == (3, 2, "a mapping")
    target = timing.entries["target"]
    assert target == Value(0.01, 4, 3, "timing.target", "1e-2")


def test_item_of_a_list_has_its_own_line_and_the_path_of_the_list() -> None:
    sizes = read("sizes:\n  - 8\n  - [16,\n     a]").entries["sizes"]
    assert isinstance(sizes.content, list)
    eight, inner = sizes.content
    assert (eight.line, eight.key_line, eight.path) == (2, 2, "sizes")
    assert (inner.line, inner.path, inner.text) == (3, "sizes", "a list")
    assert isinstance(inner.content, list)
    assert inner.content[1] == Value("a", 4, 4, "sizes", "'a'")


def test_merged_value_keeps_the_line_where_it_is_written() -> None:
    items = read("- &base\n  mode: infr\n- <<: *base\n").content
    assert isinstance(items, list)
    assert items[1].entries["mode"].line == 2


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("max_steps", "a.max_steps"),
        ("'two words'", "a.'two words'"),
        ("x" * 50, f"a.'{'x' * 40}'"),
    ],
)
def test_odd_key_is_quoted_and_cut_in_a_path(key: str, path: str) -> None:
    (value,) = read(f"a: {{{key}: 1}}").entries["a"].entries.values()
    assert value.path == path


def test_long_text_is_cut_where_a_message_shows_it() -> None:
    assert read("x" * 61).text == f"'{'x' * 57}...'"
    assert read("x" * 60).text == f"'{'x' * 60}'"


def test_find_goes_as_far_as_there_are_keys() -> None:
    root = read("a: {b: [1]}")
    assert root.find(["a", "b"]).path == "a.b"
    assert root.find(["a", "c", "d"]) is root.entries["a"]
    assert root.find(["a", "b", 0]) is root.entries["a"].entries["b"]
    assert root.find([]) is root


def test_only_keeps_the_keys_asked_for_and_the_place() -> None:
    root = read("\na: 1\nb: 2\nc: 3")
    kept = root.only({"a", "c", "d"})
    assert kept.plain() == {"a": 1, "c": 3}
    assert kept.line == root.line == 2


# ---------------------------------------------------------------- what is refused

YAML = "cannot be read as YAML:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: is empty; a mapping with models and mode would be right"),
        ("# no more\n", "1: is empty; a mapping with models and mode would be right"),
        ("a: 1\nb:\n  c: 2\na: 3", "4: a: is given twice, first in line 1"),
        ("b:\n  c: 2\n  'c': 3", "3: b.c: is given twice, first in line 2"),
        ("a:\n  b: []", "2: a.b: is an empty list; leave the key out instead"),
        ("a:\n  1: 2", "2: a: the key 1 is not a text"),
        ("a: 1\n?\n: 2", "2: the key null is not a text"),
        ("a: 1\n? [a]\n: 2", "2: the key a collection is not a text"),
        ("a: 1\n<<: 3", "2: '<<': merges a mapping only"),
        (
            "a: !!python/object/apply:os.getpid []",
            f"1: {YAML} the tag 'tag:yaml.org,2002:python/object/apply:os.getpid'"
            " has no meaning in a suite",
        ),
        (
            "mode: infer\nmodels: [ViT-B/16[24], ViT-S/16]",
            f"2: {YAML} expected ',' or ']', but got '[' while parsing a flow sequence"
            " from line 2; a model name with brackets, braces or commas"
            " wants quotes here",
        ),
        ("a: 1\n\tb: 2", f"2: {YAML} found character '\\t'"),
        ("a: 1\n---\nb: 2", f"2: {YAML} but found another document"),
        ("a: *missing", f"1: {YAML} found undefined alias 'missing'"),
        (
            'a: 1\nb: "\\UFFFFFFFF"',
            f"2: {YAML} an escape in a quoted text stands for no character",
        ),
        (
            'a: 1\nb: {"\\uD800": 1}',
            f"2: {YAML} an escape stands for half a character",
        ),
        (
            f"a: !{'x' * 100} 1",
            f"1: {YAML} the tag '!{'x' * 56}...' has no meaning in a suite",
        ),
        ("a: 1\nb: \x00", "2: is not a text file: it holds the character 0x0"),
        ("a: &a [*a]", "1: a: is nested deeper than 20"),
        ("a: &a {<<: *a}", "1: a: is nested deeper than 20"),
        (
            f"a: &a {'[' * 15}1{']' * 15}\nb: {'[' * 15}*a{']' * 15}",
            "1: b: is nested deeper than 20",
        ),
        pytest.param(
            "a: " + "[" * 100_000,
            f"1: {YAML} it is nested deeper than 20",
            id="deep",
        ),
        pytest.param(
            f"[{'1,' * MAX_VALUES}]",
            f"1: {YAML} it has more than 50000 keys and values",
            id="many",
        ),
        pytest.param(
            "#" * (MAX_SIZE + 1),
            " is larger than 1 MiB, which no suite needs",
            id="large",
        ),
    ],
)
def test_text_is_refused_by_line_and_reason(text: str, expected: str) -> None:
    # The parser's own words may go on; ours are whole.
    message = refusal(text)
    assert message.startswith(expected) if YAML in expected else message == expected


def test_no_name_in_a_file_makes_a_message_long() -> None:
    assert len(refusal(f"a: *{'x' * 10_000}")) < 300


def test_aliases_cannot_blow_a_text_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 15):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    assert "more than 50000 values in the file" in refusal("\n".join(lines))


def test_bytes_are_decoded_as_utf_8() -> None:
    assert decode("name: é\n".encode(), "suite.yaml") == "name: é\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: b\nc: \xff\n", r"^suite\.yaml:2: is not UTF-8 text$"),
        pytest.param(
            b"a: b\n" + b"#" * MAX_SIZE,
            r"^suite\.yaml: is larger than 1 MiB",
            id="large",
        ),
    ],
)
def test_bytes_that_are_no_suite_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        decode(data, "suite.yaml")
