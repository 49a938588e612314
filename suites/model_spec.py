"""The schema of a model: a vision transformer for images or clips, field by field.

Shapes: N positions of one time step, T time steps (1 for images).
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    model_validator,
)

from tlbench.suites.schema import Label, Size, Spec

GlobalPool = Literal["avg", "token", "map"]
Factorisation = Literal["joint", "encoder", "attention", "dotproduct"]
CHANNELS = 3
FACTORISATIONS: tuple[Factorisation, ...] = get_args(Factorisation)
OWN_BUILDERS: dict[str, tuple[str, ...]] = {
    "tome": ("r",),
    "random": ("keep", "place"),
    "stride": ("step", "place"),
    "fixed": ("tokens", "place"),
}
"""tlbench's own builders, each with its options; all of them must be given."""


class TokenLearnerSpec(Spec):
    """TokenLearner in a ViT: how many tokens, where, and which version."""

    num_tokens: Size
    """Tokens that the later blocks see, of each time step."""
    place: NonNegativeInt
    """Index of the first block that sees the learned tokens; the blocks before it
    see all patches. The depth itself means that TokenLearner is left out, as in the
    public code."""
    version: Literal["v1.1", "v1"] = "v1.1"
    """v1: convolutions and sigmoid, as published; v1.1: MLP and softmax."""
    pooling: Literal["sum", "mean"] = "sum"
    """How v1 pools over the positions: sum in the public code, mean in the paper."""
    fuse: bool = False
    """True: every block from `place` on has its own TokenLearner and TokenFuser, and
    all patch tokens are kept between blocks."""

    @model_validator(mode="after")
    def _only_v1_pools_by_mean(self) -> Self:
        if self.pooling == "mean" and self.version != "v1":
            raise ValueError(
                "pooling=mean needs version=v1; the weights of v1.1 already sum to 1"
            )
        return self


class GridPoolSpec(Spec):
    """Average pooling of the grid of tokens: the baseline that learns nothing."""

    window: Size
    """Side of the square window, and the distance between windows."""
    places: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=100)]
    """Indices of the blocks before which the grid is pooled, each time by `window`."""

    @model_validator(mode="after")
    def _places_rise(self) -> Self:
        if list(self.places) != sorted(set(self.places)):
            listed = ",".join(map(str, self.places))
            raise ValueError(f"places={listed} do not rise from each to the next")
        return self


class VideoSpec(Spec):
    """How a clip becomes tokens, and how tokens attend to other moments (ViViT)."""

    num_frames: Size = 32
    tubelet_size: Size = 2
    """Frames that one token covers."""
    factorisation: Factorisation = "joint"
    """The ViViT paper's model 1 (joint: every token attends to every other), 2
    (encoder: a ViT for each time step, then a transformer over time), 3 (attention:
    each block attends over time, then space) or 4 (dotproduct: half of the heads over
    time, the others over space)."""
    temporal_depth: Annotated[int, Field(ge=0, le=1000)] = 0
    """Blocks of the transformer over time; of `encoder` only."""

    @model_validator(mode="after")
    def _frames_fill_a_tubelet(self) -> Self:
        if self.tubelet_size > self.num_frames:
            raise ValueError(
                f"tubelet_size={self.tubelet_size} is longer than"
                f" num_frames={self.num_frames}"
            )
        return self

    @model_validator(mode="after")
    def _only_an_encoder_has_depth(self) -> Self:
        if (self.factorisation == "encoder") != (self.temporal_depth > 0):
            raise ValueError(
                f"temporal_depth={self.temporal_depth} does not fit"
                f" factorisation={self.factorisation}: encoder has at least 1 block"
                " over time, the others have none"
            )
        return self


Option = int | float | bool | str
_TRUTHS = {"true": True, "false": False}


def read_option(word: str) -> Option:
    """What a word behind `option=` means: true, false, a finite number or itself."""
    if word in _TRUTHS:
        return _TRUTHS[word]
    with suppress(ValueError):
        return int(word)
    with suppress(ValueError):
        number = float(word)
        if math.isfinite(number):
            return number
    return word


def _is_identifier(text: str) -> str:
    if not (text.isascii() and text.isidentifier()):
        raise ValueError(f"{text!r} is not a name that Python code could define")
    return text


def _is_option(value: object) -> object:
    """Refuse what a name cannot say, and what it would say of another value."""
    if isinstance(value, str):
        if not value.isprintable() or value != value.strip():
            raise ValueError(
                f"{value!r} is not a word: it has blanks at an end, or characters that"
                " cannot be printed"
            )
        if read_option(value) != value:
            raise ValueError(
                f"{value!r} is a text, and in the model's name it would be the value"
                f" {value}; {value} without quotes would be right"
            )
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    shown = json.dumps(value, default=str)[:60]
    raise ValueError(f"{shown} is not a finite number, true, false or a word")


Identifier = Annotated[str, Field(max_length=100), AfterValidator(_is_identifier)]
OptionValue = Annotated[Option, BeforeValidator(_is_option)]


class BuilderSpec(Spec):
    """A function that changes the model, or makes another one of it."""

    function: Identifier
    """Its name: in `file`, or one of tlbench's own (`tlbench.models.builders`)."""
    file: Annotated[Label, Field(max_length=400)] | None = None
    """A user's Python file, as the suite names it; None for tlbench's own."""
    sha256: str | None = None
    """Digest of that file, set when a suite is loaded: other code is another case."""
    options: dict[Identifier, OptionValue] = Field(default_factory=dict)
    """What the function is called with, besides the model."""


class ModelSpec(Spec):
    """A vision transformer, spelled out field by field."""

    name: Annotated[Label, Field(max_length=100)] | None = None
    """What the model without token reduction is called where its sizes are not those
    of a published ViT. Not part of the identity of a case."""
    patch_size: Size
    image_size: Size = 224
    """Pixels along a side of the image, or of each frame."""
    embed_dim: Size
    depth: Annotated[int, Field(gt=0, le=1000)]
    num_heads: Size
    mlp_dim: Size
    """Width of the MLP's hidden layer."""
    global_pool: GlobalPool = "avg"
    """What the classifier sees, in timm's words: the mean of the tokens, a class
    token, or a learned query's attention to the tokens (MAP)."""
    video: VideoSpec | None = None
    """None: a model of images."""
    token_learner: TokenLearnerSpec | None = None
    grid_pool: GridPoolSpec | None = None
    builder: BuilderSpec | None = None

    @property
    def grid_size(self) -> int:
        """Patches along one side; pixels beyond the last whole patch are dropped."""
        return self.image_size // self.patch_size

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one image [C, H, W], or of one clip [C, F, H, W]."""
        frames = () if self.video is None else (self.video.num_frames,)
        return (CHANNELS, *frames, self.image_size, self.image_size)

    @property
    def time_steps(self) -> int:
        """Moments with tokens of their own; frames of no whole tubelet are dropped."""
        if self.video is None:
            return 1
        return self.video.num_frames // self.video.tubelet_size

    @property
    def factorisation(self) -> Factorisation:
        """How tokens attend over time; those of an image all attend to each other."""
        return "joint" if self.video is None else self.video.factorisation

    @property
    def num_patches(self) -> int:
        """Tokens that the embedding makes of one image or clip."""
        return self.time_steps * self.grid_size**2

    @property
    def plain(self) -> "ModelSpec":
        """The same model with nothing that reduces its tokens."""
        reductions = {"token_learner": None, "grid_pool": None, "builder": None}
        return self.model_copy(update=reductions)

    def source(self, texts: Mapping[str, str]) -> str | None:
        """The text of the user's file that the builder stands in, by its name."""
        if self.builder is None or self.builder.file is None:
            return None
        return texts[self.builder.file]

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} does not divide over"
                f" num_heads={self.num_heads}"
            )
        if self.patch_size > self.image_size:
            raise ValueError(
                f"patch_size={self.patch_size} is larger than"
                f" image_size={self.image_size}"
            )
        if self.factorisation == "dotproduct" and self.num_heads % 2:
            raise ValueError(
                f"num_heads={self.num_heads} is odd; video.factorisation=dotproduct"
                " gives half of them to time"
            )
        return self

    @model_validator(mode="after")
    def _one_reduction_inside_the_model(self) -> Self:
        learner, pool = self.token_learner, self.grid_pool
        if learner is not None and pool is not None:
            raise ValueError(
                "grid_pool and token_learner cannot both stand in one model"
            )
        if learner is not None and learner.place > self.depth:
            raise ValueError(
                f"token_learner.place={learner.place} lies beyond the"
                f" {self.depth} blocks; 0 to {self.depth} would be right"
            )
        if pool is not None:
            self._check_pool(pool)
        return self

    def _check_pool(self, pool: GridPoolSpec) -> None:
        if pool.places[-1] >= self.depth:
            raise ValueError(
                f"grid_pool.places={pool.places[-1]} lies beyond the"
                f" {self.depth} blocks; 0 to {self.depth - 1} would be right"
            )
        if pool.window ** len(pool.places) > self.grid_size:
            raise ValueError(
                f"grid_pool.window={pool.window} is larger than what is left of the"
                f" {self.grid_size} x {self.grid_size} grid at place {pool.places[-1]}"
            )

    @model_validator(mode="after")
    def _pools_what_there_is(self) -> Self:
        reduces = self.token_learner is not None or self.grid_pool is not None
        if self.global_pool == "token" and reduces:
            raise ValueError(
                "global_pool=token does not go with token_learner or grid_pool: the"
                " public code has no class token there; avg or map would be right"
            )
        pools = {"joint": ("avg", "token", "map"), "encoder": ("avg", "token")}
        possible = pools.get(self.factorisation, ("avg",))
        if self.global_pool not in possible:
            raise ValueError(
                f"global_pool={self.global_pool} does not go with"
                f" video.factorisation={self.factorisation};"
                f" {' or '.join(possible)} would be right"
            )
        return self
