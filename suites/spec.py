"""The schema of what can be asked for: models, cases, suites and planned trials.

Everything here is frozen and plain: building it reads no device, network or
environment. The identity of a case is the SHA-256 of its canonical JSON without the
fields that stand at their default, so a default must never change its meaning.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticKnownError

Mode = Literal["profile", "infer", "train", "fit"]
MODES: tuple[Mode, ...] = get_args(Mode)
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Attention = Literal["auto", "math", "flash", "efficient", "cudnn", "eager"]
DataName = Literal["digits", "synthetic"]

NUM_CLASSES: dict[DataName, int] = {"digits": 10, "synthetic": 1000}
"""Width of the classifier that a data set asks for."""

TRAIN_SAMPLES: dict[DataName, int] = {"digits": 1442}
"""Training samples of the data sets whose labels mean something."""

MAX_SEED = 2**31
"""Seeds lie below it: the first of a run, and those of all its repeats."""

# Bounds far beyond any published model: they catch slips of the keyboard.
Size = Annotated[int, Field(gt=0, le=65_536)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]


def _is_label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(
            f"{text!r} is not a name: it has blanks at an end,"
            " or characters that cannot be printed"
        )
    return text


Label = Annotated[str, Field(min_length=1), AfterValidator(_is_label)]


class Spec(BaseModel):
    """Base of every record here: frozen, closed, strictly typed, every number finite.

    A validator's message names the fields that clash as `field=value`, nested ones
    with their dots: the loader finds their lines by it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class TokenLearnerSpec(Spec):
    """TokenLearner in a ViT: how many tokens, where, and which version."""

    num_tokens: Size
    """Tokens that the later blocks see."""
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


class ModelSpec(Spec):
    """A vision transformer, spelled out field by field."""

    name: Annotated[Label, Field(max_length=100)] | None = None
    """What the model without TokenLearner is called where its sizes are not those of
    a published ViT. Not part of the identity of a case."""
    patch_size: Size
    image_size: Size = 224
    embed_dim: Size
    depth: Annotated[int, Field(gt=0, le=1000)]
    num_heads: Size
    mlp_dim: Size
    """Width of the MLP's hidden layer."""
    token_learner: TokenLearnerSpec | None = None

    @property
    def grid_size(self) -> int:
        """Patches along one side; pixels beyond the last whole patch are dropped."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_size**2

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
        learner = self.token_learner
        if learner is not None and learner.place > self.depth:
            raise ValueError(
                f"token_learner.place={learner.place} lies beyond the"
                f" {self.depth} blocks; 0 to {self.depth} would be right"
            )
        return self


class Parallelism(Spec):
    """How one trial is spread over devices."""

    world_size: Annotated[int, Field(gt=0, le=100_000)] = 1
    """Number of ranks; one device each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 replicates everything, as DDP does."""
    nodes: PositiveInt = 1
    """Number of machines the ranks are spread over."""

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _is_whole(cls, value: object) -> object:
        """Refuse what Python holds equal to a stage: true and 1.0."""
        if isinstance(value, bool | float):
            raise PydanticKnownError("literal_error", {"expected": "0, 1, 2 or 3"})
        return value

    @model_validator(mode="after")
    def _ranks_fill_nodes(self) -> Self:
        if self.world_size % self.nodes:
            raise ValueError(
                f"world_size={self.world_size} does not divide over nodes={self.nodes}"
            )
        return self


class Optimizer(Spec):
    """AdamW, as both training modes use it."""

    learning_rate: PositiveFloat = 1e-3
    """The peak; `fit` warms up to it and then follows a half cosine to zero."""
    weight_decay: NonNegativeFloat = 0.05
    gradient_clipping: NonNegativeFloat = 1.0
    """Largest global norm of the gradient; 0 leaves it as it is."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0, le=65_536)] = 1
    """Micro-batches that make up one optimiser step."""


class Timing(Spec):
    """When the steps of a trial have been timed for long enough."""

    target: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Full width of the 95 % interval of the median step time, over the median."""
    min_steps: Annotated[int, Field(ge=6, le=1_000_000)] = 10
    """Never fewer timed steps; below six a median has no 95 % interval."""
    max_steps: Count = 1000
    max_time_s: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    """No further step is begun after this; the fewest steps come first."""

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps={self.min_steps} exceeds max_steps={self.max_steps}"
            )
        return self


class Fit(Spec):
    """Training to accuracy."""

    epochs: Annotated[int, Field(gt=0, le=100_000)] = 10
    warmup_epochs: NonNegativeFloat = 1.0
    target_top1_percent: Annotated[float, Field(gt=0, le=100)] = 90.0
    """`time_to_accuracy_s` is the training time until this is first reached."""


class Case(Spec):
    """One fully resolved point of a suite.

    Trial number r of a case is seeded with the run's seed plus r; that policy is the
    same for all, and so no field.
    """

    model: ModelSpec
    mode: Mode
    data: DataName = "synthetic"
    batch_size: Count = 8
    """Samples in one step of the whole job: all ranks, all accumulated parts."""
    precision: Precision = "fp32"
    attention: Attention = "auto"
    """Kernel: torch's choice, one of its fused or unfused ones, or timm's own plain
    matmul and softmax (eager)."""
    compile: bool = False
    """Run the model through torch.compile."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: GPUs where the cluster has them."""
    parallelism: Parallelism = Parallelism()
    optimizer: Optimizer = Optimizer()
    timing: Timing = Timing()
    fit: Fit = Fit()

    @field_validator("*")
    @classmethod
    def _default_what_the_mode_does_not_read(cls, value: Any, info: Any) -> Any:
        """Put back, once checked, what the mode does not read.

        So a suite may set everything once for all modes, and two cases differ only
        in what makes a difference.
        """
        mode = info.data.get("mode")
        if info.field_name in UNREAD.get(mode, ()):
            return cls.model_fields[info.field_name].default
        if mode == "infer" and info.field_name == "parallelism":
            return value.model_copy(update={"zero_stage": 0})  # nothing to shard
        return value

    @model_validator(mode="after")
    def _fit_has_labels(self) -> Self:
        if self.mode == "fit" and self.data not in TRAIN_SAMPLES:
            raise ValueError(
                f"mode=fit needs labels, and those of data={self.data} are random;"
                f" {', '.join(TRAIN_SAMPLES)} would do"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        parts = self.parallelism.world_size * self.accumulation
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} does not divide into {parts} parts"
                f" (parallelism.world_size={self.parallelism.world_size} x"
                f" optimizer.gradient_accumulation_steps={self.accumulation})"
            )
        return self

    @property
    def accumulation(self) -> int:
        """Micro-batches in one step."""
        return self.optimizer.gradient_accumulation_steps

    @property
    def micro_batch_size(self) -> int:
        """Samples that one rank passes through the model at once."""
        return self.batch_size // (self.parallelism.world_size * self.accumulation)

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES[self.data]

    def canonical(self) -> dict[str, Any]:
        """The fields that do not stand at their default, as plain JSON values."""
        return self.model_dump(
            mode="json", exclude_defaults=True, exclude={"model": {"name"}}
        )

    @property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


# What each mode leaves at its default.
UNREAD: dict[str, frozenset[str]] = {
    "profile": frozenset(Case.model_fields) - {"model", "mode", "data"},
    "infer": frozenset({"optimizer", "fit"}),
    "train": frozenset({"fit"}),
    "fit": frozenset({"timing"}),
}


class Suite(Spec):
    """What one run does: its cases, how often, and the limits."""

    name: Annotated[Label, Field(max_length=200)]
    description: str = ""
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]
    repeats: dict[Mode, Annotated[int, Field(gt=0, le=10_000)]]
    """Trials of each case, by mode; `profile` is deterministic and runs once."""
    seed: Annotated[int, Field(ge=0, lt=MAX_SEED)] = 0
    trial_timeout_s: Annotated[float, Field(gt=0, le=604_800)] = 1800.0
    """A trial that takes longer is ended and stored as `timeout`."""

    @model_validator(mode="after")
    def _every_trial_has_a_seed(self) -> Self:
        last = self.seed + max(self.repeats.values()) - 1
        if last >= MAX_SEED:
            raise ValueError(
                f"seed={self.seed} leaves the last repeat with {last}, which is not"
                f" below {MAX_SEED}"
            )
        return self


@dataclass(frozen=True)
class Trial:
    """One planned execution of a case."""

    case: Case
    repeat: int
    """Which of the case's repeats, from 0; also the shuffled block it stands in."""
    position: int
    """Place in the order of the run, from 0."""
    seed: int


# How a value is wrong, by pydantic's kind of error; the context fills the braces.
_WORDING = {
    "bool_type": "is not true or false",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "string_type": "is not a text",
    "string_unicode": "holds characters that no text can",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length} characters",
    "model_type": "is not a mapping",
    "greater_than": "is not greater than {gt:.12g}",
    "greater_than_equal": "is not at least {ge:.12g}",
    "less_than": "is not less than {lt:.12g}",
    "less_than_equal": "is not at most {le:.12g}",
}


def wording(error: ErrorDetails, schema: type[Spec]) -> str:
    """How a value is wrong, in words that follow the value itself."""
    kind = error["type"]
    if kind == "literal_error":
        return f"is not one of {', '.join(choices(schema, error['loc']))}"
    if kind in _WORDING:
        return _WORDING[kind].format_map(error.get("ctx", {}))
    return f"is not right: {error['msg']}"


def choices(schema: type[Spec], path: tuple[int | str, ...]) -> list[str]:
    """The values open to the field at `path`; none where it is not a choice."""
    field = schema_at(schema, path[:-1]).model_fields[str(path[-1])]
    return [str(choice) for choice in get_args(field.annotation)]


def schema_at(schema: type[Spec], path: tuple[int | str, ...]) -> type[Spec]:
    """The record that stands at `path` inside `schema`."""
    for key in path:
        annotation = schema.model_fields[str(key)].annotation
        kinds = (annotation, *get_args(annotation))  # X, or X | None
        schema = next(
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Spec)
        )
    return schema
