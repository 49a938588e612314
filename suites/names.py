"""Model names: read, printed, and expanded from braces as in a shell.

A name is `ViT-<variant>/<patch>`, then in any order `[depth]`, `@size` and
`+TL<tokens>[v1][mean][fuse]@place`; it is printed in this order, with the place as the
index of a block. What stands at its default (the variant's own depth, 224 pixels,
TokenLearner v1.1) is not printed. A model of unpublished sizes is written
`ViT-d<embed_dim>h<num_heads>m<mlp_dim>l<depth>/<patch>`.
"""

import difflib
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple, NoReturn

from pydantic import ValidationError

from tlbench.errors import SuiteError
from tlbench.suites.spec import ModelSpec, Spec, TokenLearnerSpec, wording


class Variant(NamedTuple):
    """The sizes that a letter stands for."""

    embed_dim: int
    depth: int
    mlp_dim: int
    num_heads: int


# Zhai et al. 2022 (Scaling Vision Transformers), table 2; Dosovitskiy et al. 2021.
VARIANTS = {
    "Ti": Variant(192, 12, 768, 3),
    "S": Variant(384, 12, 1536, 6),
    "B": Variant(768, 12, 3072, 12),
    "L": Variant(1024, 24, 4096, 16),
    "H": Variant(1280, 32, 5120, 16),
    "g": Variant(1408, 40, 6144, 16),
    "G": Variant(1664, 48, 8192, 16),
}

MAX_NAMES = 10_000
"""Most names that one text may expand to."""
MAX_LENGTH = 500
"""Most characters of a name, braces included."""

_DEFAULT_IMAGE_SIZE: int = ModelSpec.model_fields["image_size"].default
_QUOTES = "a name with brackets or commas wants quotes in YAML flow lists and in shells"

_HEAD = re.compile(r"ViT-([A-Za-z]+|d(\d+)h(\d+)m(\d+)l(\d+))/(\d+)", re.ASCII)
_PART = re.compile(r"\[[^\]]*\]|\+[^+@\[]*(?:@[^+@\[]*)?|@[^+@\[]*")
_DEPTH = re.compile(r"\[(\d+(?:\+\d+)*)\]", re.ASCII)
_SIZE = re.compile(r"@(\d+)", re.ASCII)
_LEARNER = re.compile(
    r"TL(?P<tokens>\d+)(?P<flags>(?:v1\.1|v1|mean|fuse)*)@(?P<place>\d+(?:/\d+)?)",
    re.ASCII,
)
_FLAG = re.compile(r"v1\.1|v1|mean|fuse")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?", re.ASCII)


def parse_model(text: str) -> ModelSpec:
    """The model that a name without braces stands for."""
    _check_length(text)
    if text.startswith("ViViT-"):
        raise SuiteError(
            f"{text!r} names a video model, which this version does not build"
        )
    if ".py:" in text:  # the builder of a user's own file, as in my_models.py:build
        raise SuiteError(
            f"{text!r} names a model of a user's own file, which this version does not"
            " build"
        )
    head = _HEAD.match(text)
    if head is None:
        _refuse(text, "a name begins with variant and patch size, as in ViT-B/16")
    parts = _split_parts(text, head.end())
    variant = _variant(text, head)
    depth = _depth(text, parts["["]) if "[" in parts else variant.depth
    size = _size(text, parts["@"]) if "@" in parts else _DEFAULT_IMAGE_SIZE
    try:
        return ModelSpec(
            patch_size=int(head[6]),
            image_size=size,
            embed_dim=variant.embed_dim,
            depth=depth,
            num_heads=variant.num_heads,
            mlp_dim=variant.mlp_dim,
            token_learner=(
                _token_learner(text, parts["+"][1:], depth) if "+" in parts else None
            ),
        )
    except ValidationError as error:
        _refuse(text, _first_complaint(error, ModelSpec))


def parse_token_learner(text: str, depth: int) -> TokenLearnerSpec:
    """The TokenLearner that `TL8@1/4` stands for in a model of `depth` blocks."""
    _check_length(text)
    return _token_learner(text, text, depth)


def model_name(spec: ModelSpec) -> str:
    """The one name that is printed for a model."""
    base = spec.name or _sizes_name(spec)
    learner = spec.token_learner
    if learner is None:
        return base
    version = "v1" if learner.version == "v1" else ""
    pooling = "mean" if learner.pooling == "mean" else ""
    fuse = "fuse" if learner.fuse else ""
    return f"{base}+TL{learner.num_tokens}{version}{pooling}{fuse}@{learner.place}"


def expand_braces(text: str) -> list[str]:
    """All texts that a shell would make of one with braces, in the shell's order."""
    _check_length(text)
    _check_braces(text)
    try:
        return _expand(text)
    except OverflowError as error:
        raise SuiteError(f"{text!r} expands to more than {MAX_NAMES} names") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message that proposes the known word nearest to `word`, if any."""
    names = list(known)
    for spelling in (word, word.swapcase()):  # b for B, BATCH_SIZE for batch_size
        nearest = difflib.get_close_matches(spelling, names, n=1, cutoff=0.4)
        if nearest:
            return f"; did you mean {nearest[0]!r}?"
    return ""


def _refuse(text: str, why: str) -> NoReturn:
    raise SuiteError(f"{text!r} cannot be built: {why}")


def _check_length(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise SuiteError(
            f"'{text[:40]}...' cannot be built: it has more than"
            f" {MAX_LENGTH} characters"
        )


def _first_complaint(error: ValidationError, schema: type[Spec]) -> str:
    """What a record of sizes has against the numbers of a name."""
    details = error.errors(include_url=False)[0]
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    field = ".".join(str(key) for key in details["loc"])
    return f"{field}: {details['input']} {wording(details, schema)}"


def _variant(text: str, head: re.Match[str]) -> Variant:
    if head[2] is not None:
        embed_dim, num_heads, mlp_dim, depth = (
            int(head[group]) for group in range(2, 6)
        )
        return Variant(embed_dim, depth, mlp_dim, num_heads)
    if head[1] not in VARIANTS:
        _refuse(
            text,
            f"{head[1]!r} is not one of {', '.join(VARIANTS)}"
            + did_you_mean(head[1], VARIANTS),
        )
    return VARIANTS[head[1]]


def _split_parts(text: str, start: int) -> dict[str, str]:
    """The parts behind the patch size, by the sign that each begins with."""
    parts: dict[str, str] = {}
    while start < len(text):
        part = _PART.match(text, start)
        if part is None:
            _refuse(text, _why_no_part(text[start:]))
        sign = part[0][0]
        if sign in parts:
            _refuse(text, f"{parts[sign]!r} and {part[0]!r} cannot both stand in it")
        parts[sign] = part[0]
        start = part.end()
    return parts


def _why_no_part(rest: str) -> str:
    if rest.startswith("["):
        return f"{rest!r} has no closing bracket; {_QUOTES}"
    return f"{rest!r} is not [depth], @size or +TL<tokens>@place"


def _depth(text: str, part: str) -> int:
    match = _DEPTH.fullmatch(part)
    if match is None:
        _refuse(text, f"{part!r} is not a depth such as [21] or [24+11]")
    return sum(int(blocks) for blocks in match[1].split("+"))


def _size(text: str, part: str) -> int:
    match = _SIZE.fullmatch(part)
    if match is None:
        _refuse(text, f"{part!r} is not an image size such as @384")
    return int(match[1])


def _token_learner(text: str, part: str, depth: int) -> TokenLearnerSpec:
    if part.startswith("pool"):
        raise SuiteError(
            f"{text!r} names a pooling baseline, which this version does not build"
        )
    match = _LEARNER.fullmatch(part)
    if match is None:
        _refuse(text, _why_no_learner(part))
    flags = _FLAG.findall(match["flags"])
    if len(set(flags)) < len(flags) or {"v1", "v1.1"} <= set(flags):
        _refuse(text, f"{match['flags']!r} says one thing twice")
    try:
        return TokenLearnerSpec(
            num_tokens=int(match["tokens"]),
            place=_place(text, match["place"], depth),
            version="v1" if "v1" in flags else "v1.1",
            pooling="mean" if "mean" in flags else "sum",
            fuse="fuse" in flags,
        )
    except ValidationError as error:
        _refuse(text, _first_complaint(error, TokenLearnerSpec))


def _why_no_learner(part: str) -> str:
    if part.startswith("TL") and "@" not in part:
        return f"{part!r} lacks its place, as in TL8@1/4"
    if "," in part or "{" in part:
        return f"{part!r} is not TL<tokens>[v1][mean][fuse]@place; {_QUOTES}"
    return f"{part!r} is not TL<tokens>[v1][mean][fuse]@place, as in TL8@1/4"


def _place(text: str, place: str, depth: int) -> int:
    """The index of a block, from itself or from a fraction of the depth."""
    blocks, slash, parts = place.partition("/")
    if not slash:
        return int(blocks)
    if int(parts) == 0:
        _refuse(text, f"place {place} divides by zero")
    index = Fraction(int(blocks), int(parts)) * depth
    if index.denominator != 1:
        below = int(index)
        _refuse(
            text,
            f"{place} of {depth} blocks is not a whole block;"
            f" place {below} or {below + 1} would be right",
        )
    return int(index)


def _sizes_name(spec: ModelSpec) -> str:
    width = (spec.embed_dim, spec.mlp_dim, spec.num_heads)
    size = "" if spec.image_size == _DEFAULT_IMAGE_SIZE else f"@{spec.image_size}"
    for letter, variant in VARIANTS.items():
        if width == (variant.embed_dim, variant.mlp_dim, variant.num_heads):
            depth = "" if spec.depth == variant.depth else f"[{spec.depth}]"
            return f"ViT-{letter}/{spec.patch_size}{depth}{size}"
    sizes = f"d{spec.embed_dim}h{spec.num_heads}m{spec.mlp_dim}l{spec.depth}"
    return f"ViT-{sizes}/{spec.patch_size}{size}"


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
