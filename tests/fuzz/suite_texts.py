"""Suites that nobody should write: made from the schema, mangled, and hostile as YAML.

Each maker takes a random generator alone, so that its seed tells what comes out.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from tlbench.suites.loader import builtin_suites
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.recipes import RECIPES
from tlbench.suites.spec import Case, Suite

Schema = dict[str, Any]
DOCS = Path(__file__).parents[2] / "docs"

# ---------------------------------------------------------------- by the grammar


class Raw(str):
    """A token that is written as it stands."""


WORDS = (
    *("", " ", "a", "max", "auto", "none", "null", "ViT-B/16", "synthetic", "digits"),
    *("\0", "\x07", "\x1b[31m", "\u202etxet", "e\u0301" * 40, "\ufeff", "\ud800"),
    *("名前", "🙂" * 30, "[/red]", "[bold]", "{}", "%s", "../..", "~nobody-here/x"),
    *("a" * 600, "{" * 12, "{0..99999}", "{a,b}{a,b}", "/dev/zero", "/proc/self/mem"),
    *("s3://user:word@host/x", "a://" + ":" * 5000, "file://", "::", "no\nlines"),
)
NUMBERS = (
    *("-1", "0", "1", "2", "2147483647", "2147483648", "-2147483649", "65536", "65537"),
    *("9223372036854775808", "1" + "0" * 40, "9" * 100, "9" * 101, "9" * 5000),
    *("1.0", "-0.0", "1e-320", "1e308", "1e309", "-1e309", ".inf", "-.inf", ".nan"),
    *("NaN", "0x10", "0o17", "017", "1_000", "1,000", "+1", "1.", ".5", "1e5", "١٢"),
    *("true", "false", "yes", "~", "2020-01-01", "12:30:45"),
)
MODELS = (
    *("ViT-B/16", "ViT-Ti/16", "ViT-S/32@384", "ViT-L/14:map", "ViT-B/16[6]:token"),
    *("ViT-B/16+TL8@1/4", "ViT-Ti/16+TL{4,8,16}@{3,6}", "ViT-S/16+pool2@3,6"),
    *(
        "ViT-B/16+TL8v1mean@6",
        "ViT-B/16+TL8fuse@3",
        "ViViT-B/16x2",
        "ViT-B/16+tome(r=8)",
    ),
    *("ViViT-B/16x2:encoder", "ViViT-B/16x2@224x16:attention", "ViT-{Ti,S,B}/16"),
    *(
        "ViT-d64h4m128l4/8@32",
        "ViT-B/16+fixed(tokens=8,place=3)",
        "ViT-B/16@{224..240..8}",
    ),
)
MODEL_HOSTILITY = (
    *("ViT-Q/16", "vit-b/16", "ViT-B/0", "ViT-B/" + "9" * 300, "ViT-B/16@999999999999"),
    *("ViT-B/16+TL8@1/0", "ViT-B/16+TL{0..20000}@6", "ViT-B/{1..9}{1..9}{1..9}{1..9}"),
    *("ViT-B/16[" + "1+" * 200 + "1]", "ViT-B/16+pool99999@" + ",".join("0" * 90)),
    *("ViT-B/16+none.py:build", "ViT-B/16+../../etc/passwd.py:f", "f.py:g(x=nan)"),
    *("ViT-B/16+tome(r=" + "9" * 200 + ")", "ViT-B/16+TL8@9999999999/9999999999"),
    *("ViT-B/16" + "+TL8@1" * 60, "{" * 9 + "a,b" + "}" * 9, "ViT-B/16{,}" * 30),
    *(
        "ViT-{0..-9223372036854775808}/16",
        "ViT-{-5..5..0}/16",
        "ViT-B/١٦",
        "ViT-B/16\n",
    ),
)


def from_schema(rng: Random) -> bytes:
    """A suite by its schema; hostile values are none, few or many."""
    return _Grammar(rng, rng.choice((0.0, 0.0, 0.02, 0.1, 0.4))).suite()


class _Grammar:
    def __init__(self, rng: Random, hostility: float) -> None:
        self.rng, self.hostility = rng, hostility

    def suite(self) -> bytes:
        mode = self.rng.choice(("infer", "train", self.setting("mode")))
        top = {"models": self.models(), "mode": mode, **self.grid(4)}
        for key in self.some(("repeats", "seed", "trial_timeout_s", "trace"), 0.2):
            top[key] = self.of_schema(_schema_of(Suite, key))
        for key in self.some(
            ("name", "description", "storage", "paths", "recipe"), 0.1
        ):
            top[key] = self.other(key)
        for key in self.some(("include", "exclude"), 0.15):
            top[key] = [self.grid(2) for _ in range(self.rng.randint(1, 3))]
        if self.rng.random() < 0.1:
            top["scales"] = {
                self.word("cpu", "small"): self.grid(2)
                for _ in range(self.rng.choice((1, 2, 30)))
            }
        lines = (f"{self.key(key)}: {self.written(top[key])}\n" for key in top)
        return "".join(lines).encode("utf-8", "surrogatepass")

    def grid(self, most: int) -> Schema:
        names = [name for name in Case.model_fields if name != "model"]
        chosen = self.rng.sample(names, self.rng.randint(0, most))
        grid = {name: self.setting(name) for name in chosen}
        if self.rng.random() < 0.1:
            grid["models"] = self.models()
        return grid

    def setting(self, name: str) -> Any:
        if self.rng.random() < 0.2:  # an axis
            length = self.rng.choice((1, 2, 3, 3, 200 if self.hostility else 4))
            return [self.of_schema(_schema_of(Case, name)) for _ in range(length)]
        return self.of_schema(_schema_of(Case, name))

    def models(self) -> Any:
        count = self.rng.choice((1, 1, 2, 5))
        return [self.model() for _ in range(count)]

    def model(self) -> Any:
        if self.is_hostile():
            return self.rng.choice((self.hostile(), self.word(*MODEL_HOSTILITY)))
        if self.rng.random() < 0.6:
            return self.word(*MODELS)
        sizes = {"patch_size": 16, "embed_dim": 64, "depth": 4, "num_heads": 4}
        names = self.rng.sample(list(ModelSpec.model_fields), self.rng.randint(0, 3))
        drawn = {name: self.of_schema(_schema_of(ModelSpec, name)) for name in names}
        return sizes | drawn

    def other(self, key: str) -> Any:
        if self.is_hostile():
            return self.hostile()
        right = {
            "recipe": self.rng.choice(list(RECIPES)),
            "paths": {"imagenet-1k": self.word("data", "/data", "~/data")},
        }
        return right.get(key, self.word("a name", "x", "名前"))

    def of_schema(self, schema: Schema) -> Any:
        """A value that the schema takes, or a hostile one."""
        rng = self.rng
        if self.is_hostile():
            return self.hostile()
        if "anyOf" in schema:
            return self.of_schema(rng.choice(schema["anyOf"]))
        if "enum" in schema or "const" in schema:
            return rng.choice(schema.get("enum") or [schema["const"]])
        if "properties" in schema:
            names = list(schema["properties"])
            chosen = set(rng.sample(names, min(rng.randint(0, 3), len(names))))
            chosen |= set(schema.get("required", ()))
            return {
                self.key(name): self.of_schema(schema["properties"][name])
                for name in names
                if name in chosen
            }
        match schema.get("type"):
            case "integer":
                return rng.choice((1, 1, 2, 2, 4, 8, schema.get("maximum", 64)))
            case "number":
                least = schema.get("minimum", 0)
                return rng.choice(
                    (least, 0.5, 0.5, 0.1, 1e-9, schema.get("maximum", 1.0))
                )
            case "boolean":
                return rng.random() < 0.5
            case "null":
                return None
            case "object":
                return {rng.choice(("infer", "train", "x")): rng.choice((1, 2, 5))}
        return rng.choice(("synthetic", "synthetic", "digits", "5,10", "TL8@1/4"))

    def hostile(self, depth: int = 0) -> Any:
        rng = self.rng
        match rng.randint(0, 6 if depth < 3 else 2):
            case 0:
                return Raw(rng.choice(NUMBERS))
            case 1 | 2:
                return rng.choice(WORDS)
            case 3:
                return [self.hostile(depth + 1) for _ in range(rng.randint(0, 3))]
            case 4:
                return {
                    rng.choice((*WORDS, "kind", "path")): self.hostile(depth + 1)
                    for _ in range(rng.randint(0, 3))
                }
            case 5:
                return [Raw(str(n)) for n in range(rng.choice((10, 300, 11_000)))]
            case _:
                return {f"k{n}": Raw("1") for n in range(rng.choice((5, 50, 800)))}

    def key(self, key: str) -> str:
        """The key, or one that is nearly it."""
        if not self.is_hostile(0.2):
            return key
        place = self.rng.randrange(len(key) + 1)
        return self.rng.choice(
            (
                key[:place] + key[place + 1 :],
                key[:place] + "_" + key[place:],
                key.upper(),
            )
        )

    def word(self, *words: str) -> str:
        return self.rng.choice(WORDS if self.is_hostile() else words)

    def some(self, names: tuple[str, ...], share: float) -> list[str]:
        return [name for name in names if self.rng.random() < share]

    def is_hostile(self, share: float = 1.0) -> bool:
        return self.rng.random() < self.hostility * share

    def written(self, value: Any) -> str:
        """The value as YAML on one line."""
        match value:
            case Raw():
                return str(value)
            case dict():
                items = (
                    f"{self.written(k)}: {self.written(v)}" for k, v in value.items()
                )
                return "{" + ", ".join(items) + "}"
            case list():
                return "[" + ", ".join(map(self.written, value)) + "]"
            case None:
                return "null"
            case bool():
                return str(value).lower()
            case str() if not self.is_hostile(0.1):
                return '"' + "".join(map(_escaped, value)) + '"'
        return str(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


@cache
def _schema_of(record: type[Any], name: str) -> Schema:
    whole = record.model_json_schema()
    resolved: Schema = _resolved(whole["properties"][name], whole.get("$defs", {}))
    return resolved


def _resolved(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_resolved(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _resolved(item, definitions) for key, item in schema.items()}


# ---------------------------------------------------------------- mangled


@cache
def _written_suites() -> list[bytes]:
    """The built-in suites, and those in the documentation."""
    package = files("tlbench.suites")
    own = [(package / f"{name}.yaml").read_bytes() for name in builtin_suites()]
    pages = [page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md"))]
    fenced = (re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) for page in pages)
    return own + [text.encode() for texts in fenced for text in texts]


def mangled(rng: Random) -> bytes:
    """A suite that somebody has written, changed at a few places."""
    data = rng.choice(_written_suites())
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        data = rng.choice(MANGLINGS)(rng, data)
    return data


def _flip_a_byte(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) or 1)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _cut_out(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) or 1)
    return data[:place] + data[place + rng.choice((1, 2, 10, 100)) :]


def _cut_off(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) or 1)]


def _replace_a_number(rng: Random, data: bytes) -> bytes:
    found = list(re.finditer(rb"\b\d+\b", data))
    if not found:
        return data
    number = rng.choice(found)
    other = rng.choice(NUMBERS).encode()
    return data[: number.start()] + other + data[number.end() :]


def _replace_a_word(rng: Random, data: bytes) -> bytes:
    found = list(re.finditer(rb"[A-Za-z_]\w+", data))
    if not found:
        return data
    word = rng.choice(found)
    other = rng.choice(
        (rng.choice(found)[0], rng.choice(WORDS).encode(errors="replace"))
    )
    return data[: word.start()] + other + data[word.end() :]


def _move_lines(rng: Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    line = rng.choice(lines)
    match rng.randint(0, 3):
        case 0:  # twice
            lines.insert(rng.randrange(len(lines)), line)
        case 1:
            lines.remove(line)
        case 2:
            lines[lines.index(line)] = rng.choice((b" ", b"  ", b"\t", b"    ")) + line
        case _:
            lines[lines.index(line)] = line.lstrip()
    return b"".join(lines)


def _put_in(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    token = rng.choice(TOKENS)
    return data[:place] + token + data[place:]


TOKENS = (
    *(
        b"!",
        b"!!",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"---\n",
        b"...\n",
        b"%YAML 9.9\n",
        b"|",
    ),
    *(b"[", b"]", b"{", b"}", b",", b": ", b"- ", b"? ", b"#", b"'", b'"', b"@", b"`"),
    *(
        b"\0",
        b"\r",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x85",
        b"\xe2\x80\xa8",
    ),
)
MANGLINGS: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip_a_byte, _cut_out, _cut_off, _replace_a_number, _replace_a_word),
    *(_move_lines, _move_lines, _put_in),
)

# ---------------------------------------------------------------- hostile YAML

SMALL = "models: ViT-Ti/16\nmode: infer\n"


def hostile_yaml(rng: Random) -> bytes:
    """One of the ways in which YAML itself is known to hurt."""
    return rng.choice(HOSTILITIES)(rng)


def _tags(rng: Random) -> bytes:
    tag = rng.choice(
        (
            *(
                "!!python/object/apply:os.system ['touch pwned']",
                "!!python/name:os.system",
            ),
            *(
                "!!python/object/new:os.system [touch pwned]",
                "!!binary aGVsbG8=",
                "!!set {a}",
            ),
            *(
                "!!timestamp 2020-01-01",
                "!!int 1",
                "!!str 1",
                "!<tag:x> 1",
                "!local 1",
                "! 1",
            ),
            *(
                "!!merge x",
                "!!omap [a: 1]",
                "!e!x 1",
                "!!python/tuple [1]",
                "!!float nan",
            ),
        )
    )
    place = rng.choice(
        ("{}", "models: {}", "mode: {}", "timing: {{target: {}}}", "- {}")
    )
    text = (
        SMALL + place.format(tag) if place.startswith("timing") else place.format(tag)
    )
    return (rng.choice(("", "%TAG !e! tag:e,2000:\n---\n")) + text).encode()


def _alias_bomb(rng: Random) -> bytes:
    width, levels = rng.choice(((9, 9), (2, 25), (100, 3), (5, 19), (1000, 2)))
    lines = ["a0: &a0 [ViT-B/16, ViT-S/16]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    lines.append(f"models: *a{levels - 1}")
    if rng.random() < 0.5:  # of mappings, by merging
        lines = [line.replace("[", "{<<: [").replace("]", "]}") for line in lines[1:]]
        lines.insert(0, "a0: &a0 {batch_size: 1}")
    return ("\n".join(lines) + "\nmode: infer\n").encode()


def _cycle(rng: Random) -> bytes:
    return rng.choice(
        (
            *(
                b"models: &a [*a]\nmode: infer\n",
                b"&a {<<: *a, mode: infer}\n",
                b"&a [*a]",
            ),
            *(
                b"&a {*a : 1}",
                b"timing: &t {target: *t}\n" + SMALL.encode(),
                b"? &a [*a]\n: 1",
            ),
            *(
                b"include: &i\n- models: x\n  <<: *i\nmode: infer\n",
                b"*a",
                b"a: *b\nb: &b 1\n",
            ),
            *(
                b"scales: &s {cpu: {include: *s}}\n" + SMALL.encode(),
                b"<<: 1",
                b"<<: [1, 2]",
            ),
        )
    )


def _deep(rng: Random) -> bytes:
    depth = rng.choice((19, 20, 21, 22, 100, 1000, 100_000))
    opened, closed = rng.choice(
        (("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("{? ", "}"))
    )
    inner = rng.choice(("", "1", "ViT-B/16"))
    return f"models: {opened * depth}{inner}{closed * depth}\nmode: infer\n".encode()


def _documents(rng: Random) -> bytes:
    between = rng.choice(
        ("---\n", "...\n", "...\n---\n", "--- |\n", "%YAML 1.1\n---\n")
    )
    return between.join([SMALL] * rng.choice((2, 3, 1000))).encode()


def _encoding(rng: Random) -> bytes:
    text = SMALL + "description: déjà 名前 🙂\n"
    encoding = rng.choice(
        ("utf-16", "utf-16-be", "utf-32", "latin-1", "utf-8-sig", "cp037")
    )
    data = text.encode(encoding, "replace")
    return rng.choice(
        (data, data[1:], data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" * 3 + data)
    )


def _binary(rng: Random) -> bytes:
    begin = rng.choice(
        (b"", b"\x7fELF", b"SQLite format 3\0", b"PK\3\4", b"\x89PNG\r\n", b"\n")
    )
    return begin + rng.randbytes(rng.choice((0, 1, 100, 100_000)))


def _long(rng: Random) -> bytes:
    size = rng.choice((500, 501, 100_000, 2**20 - 100, 2**20, 2**20 + 1, 10 * 2**20))
    unit = rng.choice(
        ("a", "#", "\n", " ", "[", "- ", "a: 1\n", "'", "{a,b}", "é", "1", "\\n")
    )
    begin = rng.choice(
        ("", SMALL, "models: ", 'description: "', "models: ['", "? ", "# ", "!")
    )
    return (begin + unit * (size // len(unit.encode()))).encode()[:size]


def _many(rng: Random) -> bytes:
    count = rng.choice((50, 3000, 9999, 10_001, 24_000))
    item, begin, end = rng.choice(
        (
            ("k{}: 1\n", SMALL, ""),
            ("k{}: 1, ", SMALL + "timing: {", "}"),
            ("{}, ", SMALL + "batch_size: [", "1]"),
            ("'ViT-x{}/16', ", "mode: infer\nmodels: [", "ViT-B/16]"),
            ("'ViT-B/16@{}', ", "mode: infer\nmodels: [", "ViT-B/16]"),
            ("{{batch_size: {}}}, ", SMALL + "exclude: [", "{batch_size: 1}]"),
            ("{{batch_size: {}}}, ", SMALL + "include: [", "{batch_size: 1}]"),
            ("s{}: {{batch_size: 1}}, ", SMALL + "scales: {", "}"),
            ("d{}: x, ", SMALL + "paths: {", "}"),
            ("- &x{} {{}}\n", "a:\n", ""),
        )
    )
    return (begin + "".join(item.format(n) for n in range(count)) + end).encode()


def _products(rng: Random) -> bytes:
    """Small texts that multiply out to large suites, or to many mistakes."""
    sides = rng.choice(("224..233", "224..323", "1..9999"))
    models = f"models: 'ViT-Ti/16[{{1..1000}}]@{{{sides}}}'\nmode: infer\n"
    wrong = ", ".join(f"k{n}: 1" for n in range(rng.choice((1, 30, 500))))
    sizes = ", ".join(map(str, range(1, rng.choice((10, 100, 2000)))))
    scales = ", ".join(f"s{n}: {{seed: {n}}}" for n in range(rng.choice((1, 3, 20))))
    return rng.choice(
        (
            models,
            models + f"repeats: {rng.choice((1, 100, 10_000))}\n",
            models + f"batch_size: [{sizes}]\n",
            models + f"timing: {{{wrong}}}\n",
            models + "exclude: {models: 'ViT-{Ti,S}/{0..4999}'}\n",
            models + f"scales: {{{scales}}}\n",
            SMALL + f"batch_size: [{sizes}]\ntiming: {{{wrong}}}\n",
            SMALL + f"batch_size: [{sizes}]\nscales: {{{scales}}}\n",
            SMALL
            + f"batch_size: [{sizes}]\nexclude: {{models: ['*?*?*?*[', '{{a,b}}']}}\n",
        )
    ).encode()


HOSTILITIES: tuple[Callable[[Random], bytes], ...] = (
    *(_tags, _alias_bomb, _cycle, _deep, _documents, _encoding, _binary, _long, _many),
    _products,
)
