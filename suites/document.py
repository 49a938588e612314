"""Documents: YAML text read into values that know their line and their path.

Nothing in a file is constructed or run. Tags, keys given twice and absurd sizes are
refused, at the first of them: what stands behind it would only be guessed at.

Plain words are read by the rules of YAML 1.2, not by PyYAML's older ones: `1e-3` is a
number; `on`, `off`, `yes`, `no` and dates are texts.
"""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.reader import ReaderError

from tlbench.errors import SuiteError

MAX_SIZE = 2**20
"""Most bytes of a file."""
MAX_DEPTH = 20
MAX_VALUES = 50_000
"""Most values in a file, its aliases written out."""


@dataclass(frozen=True)
class Value:
    """One value of a file, and where it stands."""

    content: "str | int | float | bool | list[Value] | dict[str, Value] | None"
    line: int
    key_line: int
    """Line of its key; that of the value itself in a list."""
    path: str
    """Its keys from the top, with dots; an item of a list has the path of the list."""
    text: str
    """The value as a message shows it."""

    @property
    def entries(self) -> "dict[str, Value]":
        """What a mapping holds; nothing for any other value."""
        return self.content if isinstance(self.content, dict) else {}

    def plain(self) -> Any:
        """The value as plain Python."""
        if isinstance(self.content, list):
            return [item.plain() for item in self.content]
        if isinstance(self.content, dict):
            return {key: item.plain() for key, item in self.content.items()}
        return self.content

    def find(self, path: Iterable[int | str]) -> "Value":
        """The value at `path`, or the last one there is on the way to it."""
        value = self
        for key in path:
            if key not in value.entries:
                break
            value = value.entries[str(key)]
        return value

    def only(self, keys: Collection[str]) -> "Value":
        """The same mapping with no more than `keys`."""
        entries = {key: item for key, item in self.entries.items() if key in keys}
        return replace(self, content=entries)


def read_start(path: Path, most: int) -> bytes:
    """What a file holds; of a larger one `most` bytes and one more.

    A named pipe is read until its writer has ended; one without a writer is empty.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        return file.read(most + 1)


def _open_at_once(path: str, flags: int) -> int:
    """A descriptor of a file; of a pipe too, whether it has a writer or not."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def decode(data: bytes, source: str) -> str:
    """The text of a file that holds `data`."""
    _check_size(len(data), source)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{source}:{line}: is not UTF-8 text") from error


def read_yaml(text: str, source: str) -> Value:
    """The values of one YAML document; errors call the text `source`."""
    _check_size(len(text), source)
    node = _compose(text, source)
    if node is None:
        raise SuiteError(
            f"{source}:1: is empty; a mapping with models and mode would be right"
        )
    return _Tree(source).value(node, "", _line(node))


def located(source: str, line: int, path: str, message: str) -> str:
    """The message with the place it speaks of in front; the top has an empty path."""
    place = f"{source}:{line}: {path}" if path else f"{source}:{line}"
    return f"{place}: {message}"


def join_path(path: str, key: str) -> str:
    """The path of what stands at `key` inside the mapping at `path`."""
    step = key if re.fullmatch(r"[\w-]{1,40}", key) else repr(key[:40])
    return f"{path}.{step}" if path else step


def _check_size(size: int, source: str) -> None:
    if size > MAX_SIZE:
        raise SuiteError(f"{source}: is larger than 1 MiB, which no suite needs")


# ---------------------------------------------------------------- text to nodes


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses tags and absurd sizes before they cost anything."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # stubs: bare
        self.nodes += 1
        problem = None
        if getattr(event, "tag", None) is not None:
            problem = f"the tag {_cut(event.tag)!r} has no meaning in a suite"
        elif self.depth > MAX_DEPTH:
            problem = f"it is nested deeper than {MAX_DEPTH}"
        elif self.nodes > MAX_VALUES:
            problem = f"it has more than {MAX_VALUES} keys and values"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
            problem = "an escape stands for half a character"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


_SURROGATE = re.compile("[\ud800-\udfff]")


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SuiteError(
            f"{source}:{line}: is not a text file:"
            f" it holds the character {error.character:#x}"
        ) from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SuiteError(_syntax_message(error, text, source)) from error
    except (ValueError, OverflowError) as error:  # PyYAML on "\UFFFFFFFF"
        raise SuiteError(
            f"{source}:{loader.line + 1}: cannot be read as YAML:"
            " an escape in a quoted text stands for no character"
        ) from error


_UNQUOTED_NAME = re.compile(r"ViT-[\w/@+]*[\[{,]")


def _syntax_message(error: yaml.MarkedYAMLError, text: str, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    problem = _cut(error.problem or "", 200)  # it may quote a name of any length
    message = f"{source}:{line + 1}: cannot be read as YAML: {problem}"
    if error.context and error.context_mark:
        message += f" {error.context} from line {error.context_mark.line + 1}"
    lines = text.splitlines()
    if line < len(lines) and _UNQUOTED_NAME.search(lines[line]):
        message += "; a model name with brackets, braces or commas wants quotes here"
    return message


# ---------------------------------------------------------------- nodes to values


class _Tree:
    """Turns nodes into values; aliases are written out, as far as there is room."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.room = MAX_VALUES

    def value(self, node: yaml.Node, path: str, key_line: int, depth: int = 0) -> Value:
        self._enter(node, path, depth)
        content: Any
        if isinstance(node, yaml.ScalarNode):
            content = _scalar(node)
            text = _shown(content, node.value)
        elif isinstance(node, yaml.SequenceNode):
            content, text = self._items(node, path, depth), "a list"
        else:
            content, text = self._entries(node, path, depth), "a mapping"
        return Value(content, _line(node), key_line, path, text)

    def _enter(self, node: yaml.Node, path: str, depth: int) -> None:
        self.room -= 1
        if self.room < 0:
            self._refuse(node, path, f"more than {MAX_VALUES} values in the file")
        if depth > MAX_DEPTH:  # the text is not so deep, but its aliases may be
            self._refuse(node, path, f"is nested deeper than {MAX_DEPTH}")

    def _items(self, node: yaml.SequenceNode, path: str, depth: int) -> list[Value]:
        if not node.value:
            self._refuse(node, path, "is an empty list; leave the key out instead")
        return [self.value(item, path, _line(item), depth + 1) for item in node.value]

    def _entries(self, node: yaml.Node, path: str, depth: int) -> dict[str, Value]:
        own: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                merged |= self._merged(value_node, path, depth + 1)
                continue
            key = self._key(key_node, path)
            key_path = join_path(path, key)
            if key in own:
                first = f"first in line {own[key].key_line}"
                self._refuse(key_node, key_path, f"is given twice, {first}")
            own[key] = self.value(value_node, key_path, _line(key_node), depth + 1)
        return merged | own

    def _merged(self, node: yaml.Node, path: str, depth: int) -> dict[str, Value]:
        """What `<<: *anchor` brings in; of several, the first one wins."""
        self._enter(node, path, depth)
        if isinstance(node, yaml.MappingNode):
            return self._entries(node, path, depth)
        if not isinstance(node, yaml.SequenceNode):
            self._refuse(node, join_path(path, "<<"), "merges a mapping only")
        merged: dict[str, Value] = {}
        for item in reversed(node.value):
            merged |= self._merged(item, path, depth + 1)
        return merged

    def _key(self, node: yaml.Node, path: str) -> str:
        key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            shown = node.value if isinstance(node, yaml.ScalarNode) else "a collection"
            self._refuse(node, path, f"the key {shown or 'null'} is not a text")
        return key

    def _refuse(self, node: yaml.Node, path: str, message: str) -> NoReturn:
        raise SuiteError(located(self.source, _line(node), path, message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value == "<<"


_WORDS = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_MAX_DIGITS = 100  # a longer row of digits is a text, and so never the right value


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style or len(text) > _MAX_DIGITS:  # quoted or a block: a text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        return number + 0.0  # -0.0 is 0.0, and so is its identity
    return text


def _shown(content: object, text: str) -> str:
    if isinstance(content, str):
        return repr(_cut(content))
    return text or "null"


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
