"""Model names, read and printed.

A name is `ViT-<variant>/<patch>` or `ViViT-<variant>/<patch>x<frames of a tubelet>`,
then in any order `[depth]`, `@size` (of a video `@size x frames`), `:encoder`,
`:attention` or `:dotproduct`, `:token` or `:map`, one of
`+TL<tokens>[v1][mean][fuse]@place` and `+pool<window>@places`, and a builder such as
`+tome(r=8)` or `+my_models.py:build`. It is printed in this order, with the place as
the index of a block. What stands at its default (the variant's own depth, 224 pixels,
32 frames, TokenLearner v1.1) is not printed. A model of unpublished sizes is written
`ViT-d<embed_dim>h<num_heads>m<mlp_dim>l<depth>/<patch>`.
"""

import difflib
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn

from pydantic import ValidationError

from tlbench.errors import SuiteError
from tlbench.suites.braces import check_length
from tlbench.suites.model_spec import (
    FACTORISATIONS,
    BuilderSpec,
    GlobalPool,
    GridPoolSpec,
    ModelSpec,
    Option,
    TokenLearnerSpec,
    VideoSpec,
    read_option,
)
from tlbench.suites.schema import Spec, wording


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

TEMPORAL_DEPTHS = {"L": 24}
"""Blocks over time of a factorised encoder, as the public ViViT configurations have it;
4 for every other variant."""
DEFAULT_TEMPORAL_DEPTH = 4
BUILDERS_BASE = "ViT-B/16"
"""What the builder of a user's file works on where its name says no more."""

_DEFAULT_IMAGE_SIZE: int = ModelSpec.model_fields["image_size"].default
_DEFAULT_FRAMES: int = VideoSpec.model_fields["num_frames"].default
_QUOTES = (
    "a name with brackets, parentheses or commas wants quotes in YAML flow lists and in"
    " shells"
)

_HEAD = re.compile(
    r"(?P<family>ViT|ViViT)-"
    r"(?P<variant>[A-Za-z]+|d(?P<d>\d+)h(?P<h>\d+)m(?P<m>\d+)l(?P<l>\d+))"
    r"/(?P<patch>\d+)(?:x(?P<tubelet>\d+))?",
    re.ASCII,
)
_PART = re.compile(
    r"\[[^\]]*\]"
    r"|:[^:+@\[]*"
    r"|\+(?:TL|pool)(?=[\d@{]|$)[^:+@\[(]*(?:@[^:+@\[]*)?"
    r"|\+(?:[^:+@\[(]*\.py:)?[^:+@\[(]*(?:\([^)]*\))?"
    r"|@[^:+@\[]*"
)
_DEPTH = re.compile(r"\[(\d+(?:\+\d+)*)\]", re.ASCII)
_SIZE = re.compile(r"@(\d+)(?:x(\d+))?", re.ASCII)
_FACTORISATION = re.compile(r":(encoder|attention|dotproduct)(\d+)?", re.ASCII)
_GLOBAL_POOLS: dict[str, GlobalPool] = {"": "avg", ":token": "token", ":map": "map"}
_LEARNER = re.compile(
    r"TL(?P<tokens>\d+)(?P<flags>(?:v1\.1|v1|mean|fuse)*)@(?P<place>\d+(?:/\d+)?)",
    re.ASCII,
)
_FLAG = re.compile(r"v1\.1|v1|mean|fuse")
_POOL = re.compile(r"pool(\d+)@(\d+(?:/\d+)?(?:,\d+(?:/\d+)?)*)", re.ASCII)
_BUILDER = re.compile(
    r"(?:(?P<file>[^:()]*\.py):)?(?P<function>[A-Za-z_]\w*)(?:\((?P<options>[^)]*)\))?",
    re.ASCII,
)
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)=([\w.+/-]+)\s*", re.ASCII)


def parse_model(text: str) -> ModelSpec:
    """The model that a name without braces stands for."""
    check_length(text)
    head = _HEAD.match(text)
    if head is None and _begins_with_a_file(text):
        return parse_model(f"{BUILDERS_BASE}+{text}")
    if head is None:
        _refuse(
            text,
            "a name begins with variant and patch size, as in ViT-B/16,"
            " or with those of a tubelet, as in ViViT-B/16x2",
        )
    return _build(text, head, _split_parts(text, head.end()))


def _begins_with_a_file(text: str) -> bool:
    file, colon, _ = text.partition(".py:")
    return bool(colon) and "+" not in file


def _build(text: str, head: re.Match[str], parts: dict[str, str]) -> ModelSpec:
    variant = _variant(text, head)
    depth = _depth(text, parts["["]) if "[" in parts else variant.depth
    size, frames = _size(text, head, parts.get("@"))
    learner, pool, builder = map(parts.get, ("+TL", "+pool", "+builder"))
    try:
        return ModelSpec(
            patch_size=int(head["patch"]),
            image_size=size,
            embed_dim=variant.embed_dim,
            depth=depth,
            num_heads=variant.num_heads,
            mlp_dim=variant.mlp_dim,
            global_pool=_GLOBAL_POOLS[parts.get(":pool", "")],
            video=_video(text, head, frames, parts.get(":")),
            token_learner=_token_learner(text, learner[1:], depth) if learner else None,
            grid_pool=_grid_pool(text, pool[1:], depth) if pool else None,
            builder=_builder(text, builder[1:]) if builder else None,
        )
    except ValidationError as error:
        _refuse(text, _first_complaint(error, ModelSpec))


def parse_token_learner(text: str, depth: int) -> TokenLearnerSpec:
    """The TokenLearner that `TL8@1/4` stands for in a model of `depth` blocks."""
    check_length(text)
    return _token_learner(text, text, depth)


def parse_grid_pool(text: str, depth: int) -> GridPoolSpec:
    """The pooling that `pool4@9,18` stands for in a model of `depth` blocks."""
    check_length(text)
    return _grid_pool(text, text, depth)


def model_name(spec: ModelSpec) -> str:
    """The one name that is printed for a model."""
    base = spec.name or _sizes_name(spec)
    return base + "".join(
        f"+{part}"
        for part in (
            spec.token_learner and token_learner_name(spec.token_learner),
            spec.grid_pool and grid_pool_name(spec.grid_pool),
            spec.builder and _builder_name(spec.builder),
        )
        if part
    )


def token_learner_name(learner: TokenLearnerSpec) -> str:
    """The short form, such as `TL8@3`."""
    version = "v1" if learner.version == "v1" else ""
    pooling = "mean" if learner.pooling == "mean" else ""
    fuse = "fuse" if learner.fuse else ""
    return f"TL{learner.num_tokens}{version}{pooling}{fuse}@{learner.place}"


def grid_pool_name(pool: GridPoolSpec) -> str:
    """The short form, such as `pool4@9,18`."""
    return f"pool{pool.window}@{','.join(map(str, pool.places))}"


def _builder_name(builder: BuilderSpec) -> str:
    options = ",".join(
        f"{name}={option_text(value)}"
        for name, value in sorted(builder.options.items())
    )
    function = f"{builder.function}({options})" if options else builder.function
    return f"{builder.file}:{function}" if builder.file else function


def option_text(value: Option) -> str:
    """An option as a name says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def _first_complaint(error: ValidationError, schema: type[Spec]) -> str:
    """What a record of sizes has against the numbers of a name."""
    details = error.errors(include_url=False)[0]
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    field = ".".join(str(key) for key in details["loc"])
    return f"{field}: {details['input']} {wording(details, schema)}"


def _variant(text: str, head: re.Match[str]) -> Variant:
    letter = head["variant"]
    if head["d"] is not None:
        return Variant(*(int(head[group]) for group in "dlmh"))
    if letter not in VARIANTS:
        _refuse(
            text,
            f"{letter!r} is not one of {', '.join(VARIANTS)}"
            + did_you_mean(letter, VARIANTS),
        )
    return VARIANTS[letter]


def _split_parts(text: str, start: int) -> dict[str, str]:
    """The parts behind the patch size, by what each of them says."""
    parts: dict[str, str] = {}
    while start < len(text):
        part = _PART.match(text, start)
        if part is None:
            _refuse(text, _why_no_part(text[start:]))
        kind = _kind(part[0])
        if kind in parts:
            _refuse(text, f"{parts[kind]!r} and {part[0]!r} cannot both stand in it")
        parts[kind] = part[0]
        start = part.end()
    return parts


def _kind(part: str) -> str:
    """What a part speaks of: its sign, or more where several share a sign."""
    if part in _GLOBAL_POOLS:
        return ":pool"
    if part[0] != "+":
        return part[0]
    reduction = re.match(r"\+(TL|pool)(\d|@|\{|$)", part)
    return f"+{reduction[1]}" if reduction else "+builder"


def _why_no_part(rest: str) -> str:
    if rest.startswith("["):
        return f"{rest!r} has no closing bracket; {_QUOTES}"
    if rest.startswith("(") and ")" not in rest:
        return f"{rest!r} has no closing parenthesis; {_QUOTES}"
    return (
        f"{rest!r} is not [depth], @size, :token, +TL<tokens>@place,"
        " +pool<window>@place or a builder such as +tome(r=8)"
    )


def _depth(text: str, part: str) -> int:
    match = _DEPTH.fullmatch(part)
    if match is None:
        _refuse(text, f"{part!r} is not a depth such as [21] or [24+11]")
    return sum(int(blocks) for blocks in match[1].split("+"))


def _size(text: str, head: re.Match[str], part: str | None) -> tuple[int, int]:
    """Pixels along a side, and frames of a clip."""
    if part is None:
        return _DEFAULT_IMAGE_SIZE, _DEFAULT_FRAMES
    match = _SIZE.fullmatch(part)
    if match is None:
        _refuse(text, f"{part!r} is not an image size such as @384")
    if match[2] is not None and head["family"] == "ViT":
        _refuse(
            text,
            f"{part!r} has two sizes, and the images of a ViT are square:"
            f" @{match[1]} would be right (of a ViViT the second is its frames)",
        )
    return int(match[1]), int(match[2] or _DEFAULT_FRAMES)


def _video(
    text: str, head: re.Match[str], frames: int, part: str | None
) -> VideoSpec | None:
    if head["family"] == "ViT":
        if head["tubelet"] is not None:
            _refuse(text, "tubelets are for video: ViViT-B/16x2 would be right")
        if part is not None:
            _refuse(text, f"{part!r} is for video, as in ViViT-B/16x2:encoder")
        return None
    if head["tubelet"] is None:
        _refuse(text, f"a ViViT names its tubelet, as in {head[0]}x2")
    factorisation, temporal_depth = _factorisation(text, head, part)
    try:
        return VideoSpec(
            num_frames=frames,
            tubelet_size=int(head["tubelet"]),
            factorisation=factorisation,
            temporal_depth=temporal_depth,
        )
    except ValidationError as error:
        _refuse(text, _first_complaint(error, VideoSpec))


def _factorisation(text: str, head: re.Match[str], part: str | None) -> tuple[Any, int]:
    """The factorisation, and the blocks over time that it has."""
    if part is None:
        return "joint", 0
    match = _FACTORISATION.fullmatch(part)
    if match is None:
        known = [f":{name}" for name in FACTORISATIONS[1:]] + list(_GLOBAL_POOLS)[1:]
        _refuse(text, f"{part!r} is not one of {', '.join(known)}")
    if match[1] != "encoder":
        return match[1], int(match[2] or 0)
    return match[1], int(match[2] or _temporal_depth(head["variant"]))


def _temporal_depth(variant: str) -> int:
    return TEMPORAL_DEPTHS.get(variant, DEFAULT_TEMPORAL_DEPTH)


def _grid_pool(text: str, part: str, depth: int) -> GridPoolSpec:
    match = _POOL.fullmatch(part)
    if match is None:
        _refuse(text, f"{part!r} is not pool<window>@places, as in pool4@9,18")
    places = tuple(_place(text, place, depth) for place in match[2].split(","))
    try:
        return GridPoolSpec(window=int(match[1]), places=places)
    except ValidationError as error:
        _refuse(text, _first_complaint(error, GridPoolSpec))


def _builder(text: str, part: str) -> BuilderSpec:
    match = _BUILDER.fullmatch(part)
    if match is None:
        _refuse(
            text,
            f"'+{part}' is not +TL<tokens>@place, +pool<window>@place or a builder,"
            " as in +tome(r=8) or +my_models.py:build",
        )
    try:
        return BuilderSpec(
            function=match["function"],
            file=match["file"],
            options=_options(text, match["options"]),
        )
    except ValidationError as error:
        _refuse(text, _first_complaint(error, BuilderSpec))


def _options(text: str, listed: str | None) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for item in listed.split(",") if listed else ():
        match = _OPTION.fullmatch(item)
        if match is None or match[1] in options:
            _refuse(text, f"{item!r} is not a new option=value, as in tome(r=8)")
        options[match[1]] = read_option(match[2])
    return options


def _token_learner(text: str, part: str, depth: int) -> TokenLearnerSpec:
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
    letter = f"d{spec.embed_dim}h{spec.num_heads}m{spec.mlp_dim}l{spec.depth}"
    depth = ""
    for known, variant in VARIANTS.items():
        if width == (variant.embed_dim, variant.mlp_dim, variant.num_heads):
            letter = known
            depth = "" if spec.depth == variant.depth else f"[{spec.depth}]"
    family, tubelet = "ViT", ""
    if spec.video is not None:
        family, tubelet = "ViViT", f"x{spec.video.tubelet_size}"
    pool = "" if spec.global_pool == "avg" else f":{spec.global_pool}"
    return (
        f"{family}-{letter}/{spec.patch_size}{tubelet}{depth}{_size_name(spec)}"
        f"{_factorisation_name(spec, letter)}{pool}"
    )


def _size_name(spec: ModelSpec) -> str:
    frames = _DEFAULT_FRAMES if spec.video is None else spec.video.num_frames
    if frames != _DEFAULT_FRAMES:
        return f"@{spec.image_size}x{frames}"
    return "" if spec.image_size == _DEFAULT_IMAGE_SIZE else f"@{spec.image_size}"


def _factorisation_name(spec: ModelSpec, letter: str) -> str:
    if spec.factorisation == "joint" or spec.video is None:
        return ""
    depth = spec.video.temporal_depth
    is_usual = depth in (0, _temporal_depth(letter))
    return f":{spec.factorisation}{'' if is_usual else depth}"
