"""The schema of what can be asked for: cases, suites and planned trials.

Everything here is frozen and plain: building it reads no device, network or
environment. The identity of a case is the SHA-256 of its canonical JSON without the
fields that stand at their default, so a default must never change its meaning.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from tlbench.suites.datasets import KINDS, DataInfo, Kind
from tlbench.suites.deepspeed import Config, Decisions, undecided
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.schema import Count, CountOrMax, Label, Size, Spec
from tlbench.suites.training import (
    Augment,
    Checkpoint,
    FewShot,
    Fit,
    Optimizer,
    View,
)

Mode = Literal["profile", "infer", "train", "fit", "fewshot", "evaluate"]
MODES: tuple[Mode, ...] = get_args(Mode)
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Attention = Literal["auto", "math", "flash", "efficient", "cudnn", "eager"]
NO_TRAINING: frozenset[Mode] = frozenset({"infer", "fewshot", "evaluate"})
"""Modes that leave the weights as they are."""

Failure = Literal["lost", "timeout", "oom", "error", "nan"]
"""How a trial may come to nothing that another attempt may change."""
FAILURES: tuple[Failure, ...] = get_args(Failure)
DEFAULT_RETRY: dict[Failure, int] = {"lost": 1}

_LABEL = re.compile(r"[\w./-]+=[\w.-]+")
"""One of Ray's labels; https://docs.ray.io/en/latest/ray-core/scheduling/labels.html."""

MAX_SEED = 2**31
"""Seeds lie below it: the first of a run, and those of all its repeats."""


class Parallelism(Spec):
    """How one trial is spread over devices."""

    world_size: Annotated[int, Field(gt=0, le=100_000)] = 1
    """Number of ranks; one device each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 replicates everything, as DDP does."""
    nodes: PositiveInt = 1
    """Number of machines the ranks are spread over."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What ZeRO keeps in the memory of the host: nothing, the optimiser's states and
    the gradients it steps by (from stage 1), or those and the weights (stage 3)."""
    placement: Literal["strict", "pack", "spread"] = "strict"
    """strict: exactly `nodes` machines, equally many ranks on each. pack: as few
    machines as hold them, filled one after another. spread: all machines of the
    cluster's, as evenly as it goes."""
    exclusive: Literal["device", "node"] = "device"
    """Whether other trials may use the other GPUs of a node meanwhile. On CPUs a trial
    takes its nodes whole either way."""

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

    @property
    def is_on_one_node(self) -> bool:
        """Whether all ranks are sure to share a machine."""
        alone = self.world_size == 1
        return alone or (self.nodes == 1 and self.placement == "strict")

    @model_validator(mode="after")
    def _nodes_are_for_strict_placement(self) -> Self:
        if self.placement != "strict" and self.nodes > 1:
            raise ValueError(
                f"nodes={self.nodes} is exact, and placement={self.placement} finds"
                " out how many; one of them would do"
            )
        return self

    @model_validator(mode="after")
    def _offload_fits_the_stage(self) -> Self:
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(
                f"offload={self.offload} needs ZeRO stage {needed} at least, and"
                f" zero_stage={self.zero_stage}"
            )
        return self


class Resources(Spec):
    """Which nodes of a cluster a trial may run on."""

    accelerator: Annotated[Label, Field(max_length=100)] | None = None
    """Ray's accelerator type of the node, such as H100; None: any, but in one run the
    same for all cases that leave it open."""
    labels: Annotated[Label, Field(max_length=1000)] | None = None
    """Ray's labels that the node must have, such as `zone=a,disk=nvme`."""

    @field_validator("labels")
    @classmethod
    def _labels_are_pairs(cls, text: str | None) -> str | None:
        if text is not None and not all(map(_LABEL.fullmatch, text.split(","))):
            raise ValueError(f"labels={text} are no pairs; zone=a,disk=nvme would do")
        return text

    @property
    def label_values(self) -> dict[str, str]:
        """The labels by their names."""
        pairs = self.labels.split(",") if self.labels else []
        return dict(pair.split("=") for pair in pairs)


class Timing(Spec):
    """When the steps of a trial have been timed for long enough."""

    target: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Full width of the 95 % interval of the median step time, over the median."""
    min_steps: Count = 10
    """Never fewer timed steps; below ten their median has no 95 % interval, and
    `target` ends nothing."""
    max_steps: Count = 1000
    max_time_s: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    """No further steps are begun after this; the fewest steps come first, and steps
    that still drift get as long again, once."""

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps={self.min_steps} exceeds max_steps={self.max_steps}"
            )
        return self


class Input(Spec):
    """Where the samples of the timed steps come from."""

    kind: Literal["fixed", "loader"] = "fixed"
    """fixed: one batch that lies on the device and is used again in every step.
    loader: torch's DataLoader makes each batch from the data set, sample by sample,
    and the step waits for it."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes of each rank that load for it; 0: the rank loads between its steps."""

    @model_validator(mode="after")
    def _workers_have_work(self) -> Self:
        if self.workers and self.kind == "fixed":
            raise ValueError(
                f"workers={self.workers} have nothing to load with kind={self.kind};"
                " kind: loader would do"
            )
        return self


class Case(Spec):
    """One fully resolved point of a suite.

    Trial number r of a case is seeded with the run's seed plus r; that policy is the
    same for all, and so no field.
    """

    model: ModelSpec
    mode: Mode
    data: Annotated[Label, Field(max_length=100)] = "synthetic"
    """A known data set, or one of the user's own, which `classes` tells apart."""
    classes: Size | None = None
    """Of a data set of the user's own."""
    batch_size: CountOrMax = 8
    """Samples in one step of the whole job: all ranks, all accumulated parts. max: the
    most that fit into the memory, which the run finds out first."""
    memory_limit_gib: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """With `batch_size: max`, what one rank may hold: on a CPU of host memory over
    what the built process holds, which only the suite can say; on a GPU of its memory,
    and by default all of it."""
    precision: Precision = "fp32"
    attention: Attention = "auto"
    """Kernel: torch's choice, one of its fused or unfused ones, or timm's own plain
    matmul and softmax (eager)."""
    compile: bool = False
    """Run the model through torch.compile."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth: the last block is left out this often, earlier ones less."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of the blocks, and compute the rest anew going back."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: GPUs where the cluster has them."""
    parallelism: Parallelism = Parallelism()
    resources: Resources = Resources()
    stack: Literal["torch", "torchrun", "ray", "deepspeed"] = "deepspeed"
    """What runs the steps: torch alone in a plain process; processes of torchrun;
    workers of Ray; or DeepSpeed in them. Without DeepSpeed, several ranks train under
    torch's DistributedDataParallel."""
    input: Input = Input()
    optimizer: Optimizer = Optimizer()
    timing: Timing = Timing()
    fit: Fit = Fit()
    augment: Augment = Augment()
    view: View = View()
    fewshot: FewShot = FewShot()
    checkpoint: Checkpoint | None = None
    """None: the model starts from random weights."""
    deepspeed: Config | None = None
    """What the user's own configuration tells DeepSpeed beyond the other settings."""

    @field_validator("*")
    @classmethod
    def _default_what_is_not_read(cls, value: Any, info: Any) -> Any:
        """Put back, once checked, what the mode or the batch size does not read.

        So a suite may set everything once for all modes, and two cases differ only
        in what makes a difference.
        """
        mode = info.data.get("mode")
        is_limited = info.data.get("batch_size") == "max"
        match info.field_name:
            case name if name in UNREAD.get(mode, ()):
                return cls.model_fields[name].default
            case "memory_limit_gib" if not is_limited:
                return None
            case "parallelism" if mode in NO_TRAINING:  # nothing to shard
                return value.model_copy(update={"zero_stage": 0, "offload": "none"})
            case "stack" if mode == "infer" and value == "ray":  # nothing to optimise
                return "deepspeed"
            case _:
                return value

    @field_validator("deepspeed")
    @classmethod
    def _leave_out_what_is_decided(cls, value: Any, info: Any) -> Any:
        """Keep of the configuration what the settings ahead of it do not decide."""
        if value is None or not info.data.keys() >= _DECIDING:
            return value
        return undecided(value, cls.model_construct(**info.data).deepspeed_decisions)

    @model_validator(mode="after")
    def _data_is_known(self) -> Self:
        kind: Kind = "images" if self.model.video is None else "clips"
        known = KINDS[kind]
        if self.data in known:
            if self.classes is not None:
                raise ValueError(
                    f"classes={self.classes} is for data of one's own, and"
                    f" data={self.data} is known"
                )
        elif any(self.data in others for others in KINDS.values()):
            raise ValueError(
                f"data={self.data} has no {kind}, which the model reads;"
                f" {', '.join(known)} would do"
            )
        elif self.classes is None:
            raise ValueError(
                f"data={self.data} is none of {', '.join(known)}; for data of one's"
                " own, classes says how many there are"
            )
        return self

    @model_validator(mode="after")
    def _labels_mean_something(self) -> Self:
        if self.mode not in ("fit", "fewshot", "evaluate"):
            return self
        if not self.data_info.has_meaning:
            raise ValueError(
                f"mode={self.mode} needs labels, and those of data={self.data} are"
                " random; digits or moving-digits would do"
            )
        if self.data_info.is_multilabel and self.mode == "fewshot":
            raise ValueError(
                f"mode=fewshot learns one label of each sample, and those of"
                f" data={self.data} may have several"
            )
        if self.data_info.is_eval_only and self.mode != "evaluate":
            raise ValueError(
                f"mode={self.mode} trains, and data={self.data} is for evaluation only"
            )
        return self

    @model_validator(mode="after")
    def _largest_batch_is_timed(self) -> Self:
        if self.batch_size == "max" and self.mode == "fit":
            raise ValueError(
                "batch_size=max would train another recipe on every machine with"
                " mode=fit; a number would do"
            )
        return self

    @model_validator(mode="after")
    def _stack_has_its_ranks(self) -> Self:
        if self.stack == "torch" and self.parallelism.world_size > 1:
            raise ValueError(
                f"stack=torch is one process, and parallelism.world_size="
                f"{self.parallelism.world_size}"
            )
        if self.stack != "deepspeed" and self.parallelism.zero_stage:
            raise ValueError(
                f"stack={self.stack} has no ZeRO, and parallelism.zero_stage="
                f"{self.parallelism.zero_stage}"
            )
        if self.stack != "deepspeed" and self.deepspeed is not None:
            raise ValueError(
                f"stack={self.stack} does without DeepSpeed, and deepspeed configures"
                " it; stack: deepspeed would do"
            )
        if self.stack == "torchrun" and not self.parallelism.is_on_one_node:
            raise ValueError(
                f"stack=torchrun stays on one node, and parallelism.nodes="
                f"{self.parallelism.nodes}, parallelism.placement="
                f"{self.parallelism.placement}"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size == "max":
            return self
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
    def global_batch_size(self) -> int:
        """Samples in one step of the whole job, once that is known."""
        if self.batch_size == "max":
            raise ValueError("the largest batch has to be found first")
        return self.batch_size

    @property
    def micro_batch_size(self) -> int:
        """Samples that one rank passes through the model at once."""
        return self.global_batch_size // (
            self.parallelism.world_size * self.accumulation
        )

    @property
    def deepspeed_decisions(self) -> Decisions:
        """What DeepSpeed is told by other settings than `deepspeed`.

        What it would be told of a batch that is not known yet is None.
        """
        is_known = self.batch_size != "max"
        batch = self.global_batch_size if is_known else None
        micro = self.micro_batch_size if is_known else None
        optimizer, offload = self.optimizer, self.parallelism.offload
        states, weights = offload != "none", offload == "all"
        zero = {
            "stage": (self.parallelism.zero_stage, "parallelism.zero_stage"),
            "offload_optimizer.device": ("cpu" if states else "none", _OFFLOAD),
            "offload_param.device": ("cpu" if weights else "none", _OFFLOAD),
            "cpu_offload": (states, _OFFLOAD),
            "cpu_offload_param": (weights, _OFFLOAD),
        }
        precisions = {
            "bf16": self.precision == "bf16",
            "bfloat16": self.precision == "bf16",
            "fp16": self.precision == "fp16",
            "amp": False,
            "torch_autocast": False,
        }
        return {
            "train_batch_size": (batch, "batch_size"),
            "train_micro_batch_size_per_gpu": (micro, "batch_size"),
            "elasticity.enabled": (False, "batch_size"),
            "gradient_accumulation_steps": (
                self.accumulation,
                "optimizer.gradient_accumulation_steps",
            ),
            "gradient_clipping": (
                optimizer.gradient_clipping,
                "optimizer.gradient_clipping",
            ),
            **{f"zero_optimization.{key}": told for key, told in zero.items()},
            **{
                f"{key}.enabled": (is_on, "precision")
                for key, is_on in precisions.items()
            },
            "optimizer": (None, "optimizer"),
            "optimizer.type": (optimizer.kind, "optimizer.kind"),
            "optimizer.params.lr": (optimizer.learning_rate, "optimizer.learning_rate"),
            "optimizer.params.weight_decay": (
                optimizer.weight_decay,
                "optimizer.weight_decay",
            ),
            "scheduler": (None, "fit.schedule"),
        }

    @property
    def num_classes(self) -> int:
        return self.data_info.num_classes

    @property
    def data_info(self) -> DataInfo:
        """What is known of the data set before it is opened."""
        known = KINDS["images" if self.model.video is None else "clips"]
        if self.classes is not None:
            return DataInfo(self.classes)
        return known[self.data]

    @property
    def views(self) -> int:
        """Images or clips that evaluation makes of one sample."""
        clips = 1 if self.model.video is None else self.view.temporal_clips
        return clips * self.view.spatial_crops

    @property
    def accuracy_metric(self) -> str | None:
        """What says how good the model is; None where nobody asks."""
        if self.mode == "fewshot":
            return self.fewshot.main_metric
        if self.mode in ("fit", "evaluate"):
            return "map_percent" if self.data_info.is_multilabel else "top1_percent"
        return None

    @property
    def main_metric(self) -> str:
        """What the case is run for."""
        if self.mode == "profile":
            return "macs"
        return self.accuracy_metric or "throughput_samples_per_s"

    def canonical(self) -> dict[str, Any]:
        """The fields that do not stand at their default, as plain JSON values."""
        return self.model_dump(
            mode="json", exclude_defaults=True, exclude={"model": {"name"}}
        )

    @property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return identity_of(self.canonical())


def identity_of(canonical: dict[str, Any]) -> str:
    """The identity of the case with this canonical JSON.

    A checkpoint of a known digest is the same one wherever it lies.
    """
    checkpoint = canonical.get("checkpoint", {})
    if "sha256" in checkpoint:
        unplaced = {key: checkpoint[key] for key in checkpoint if key != "path"}
        canonical = {**canonical, "checkpoint": unplaced}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


_OFFLOAD = "parallelism.offload"
_DECIDING = frozenset({"batch_size", "precision", "parallelism", "optimizer"})
"""The settings that DeepSpeed is told of beside its own configuration."""

# What each mode leaves at its default.
_ACCURACY = frozenset({"fit", "augment", "view", "fewshot"})
_TRAINING = frozenset(
    {
        *("optimizer", "fit", "augment", "drop_path_rate", "gradient_checkpointing"),
        "deepspeed",
    }
)
UNREAD: dict[str, frozenset[str]] = {
    "profile": frozenset(Case.model_fields) - {"model", "mode", "data", "classes"},
    "infer": _ACCURACY | _TRAINING,
    "train": _ACCURACY,
    "fit": frozenset({"timing", "input", "stack", "fewshot"}),
    "fewshot": _TRAINING | {"timing", "input", "stack"},
    "evaluate": _TRAINING | {"timing", "input", "stack", "fewshot"},
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
    placement_timeout_s: Annotated[float, Field(gt=0, le=604_800)] = 600.0
    """A trial whose nodes are held by others for longer is stored as `lost`."""
    retry: dict[Failure, Annotated[int, Field(ge=0, le=100)]] = Field(
        default_factory=lambda: dict(DEFAULT_RETRY)
    )
    """Attempts after the first, at most, of a trial that ended so; all are stored."""
    paths: dict[str, str] = Field(default_factory=dict)
    """Where data sets lie, by their names; no part of a case."""
    storage: str | None = None
    """Where `fit` keeps its checkpoints, a folder or a URL of fsspec; None: nowhere."""
    trace: bool = False
    """Whether the first trial of each timed case keeps a trace of torch's profiler."""
    sources: dict[str, str] = Field(default_factory=dict)
    """The texts of the users' files whose builders the models name."""

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
    source: str | None = None
    """The text of the user's file that the model's builder stands in."""
    data_path: str | None = None
    """Where the data set lies; None: it comes with tlbench."""
    storage: str | None = None
    """Where checkpoints are kept, a folder or a URL of fsspec; None: nowhere."""
    is_traced: bool = False
    """Whether it takes a trace of torch's profiler, in a pass of its own."""
