"""The schema of what training, probing and evaluation can be asked for."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from tlbench.suites.schema import Count, Label, Spec

Share = Annotated[float, Field(ge=0, le=1)]
MAX_EPOCHS = 100_000


class Optimizer(Spec):
    """What takes the steps, as all training modes use it."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """sgd has momentum 0.9."""
    learning_rate: PositiveFloat = 1e-3
    """The peak; the schedule of `fit` leads up to it and down again."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled, and scaled by the learning rate; of matrices only."""
    gradient_clipping: NonNegativeFloat = 1.0
    """Largest global norm of the gradient; 0 leaves it as it is."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0, le=65_536)] = 1
    """Micro-batches that make up one optimiser step."""


class Fit(Spec):
    """Training to accuracy."""

    epochs: Annotated[int, Field(gt=0, le=MAX_EPOCHS)] = 10
    steps: Count | None = None
    """Optimiser steps in all, in place of `epochs`."""
    warmup_epochs: NonNegativeFloat = 1.0
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Steps of the linear rise, in place of `warmup_epochs`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the rise."""
    end_learning_rate: NonNegativeFloat = 0.0
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over the classes, or of each class by itself, summed over them."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_bias: float = 0.0
    """What the biases of the classifier start from."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Polyak averaging of the weights, one step to the next; the average is what is
    evaluated. 0: none."""
    eval_epochs: Annotated[int, Field(gt=0, le=MAX_EPOCHS)] = 1
    """Epochs from one evaluation to the next; there is one after the last."""
    target_top1_percent: Annotated[float, Field(gt=0, le=100)] = 90.0
    """`time_to_accuracy_s` is the training time until this is first reached."""

    @model_validator(mode="after")
    def _rise_ends_in_time(self) -> Self:
        if self.steps is not None and (self.warmup_steps or 0) > self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} exceeds steps={self.steps}"
            )
        return self


class Augment(Spec):
    """How training samples are varied; by default not at all."""

    crop: Literal["whole", "random", "corner"] = "whole"
    """whole: all of the sample, scaled to the model's size. random: an area of random
    share and shape. corner: of the model's size, anywhere, after scaling."""
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.08
    """With crop: random, the smallest share of the area."""
    min_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    max_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    """With crop: corner, the short side is scaled to that of `view` times a random
    number between the two."""
    flip: Share = 0.0
    """How often a sample is mirrored."""
    rand_augment_layers: Annotated[int, Field(ge=0, le=10)] = 0
    rand_augment_magnitude: Annotated[int, Field(ge=0, le=30)] = 0
    color_jitter: Share = 0.0
    """How often brightness, contrast, saturation and hue are changed."""
    grayscale: Share = 0.0
    erasing: Share = 0.0
    mixup: NonNegativeFloat = 0.0
    """Alpha of the Beta distribution that two samples are mixed by; 0: not mixed."""
    cutmix: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _scales_are_ordered(self) -> Self:
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale={self.min_scale} exceeds max_scale={self.max_scale}"
            )
        return self


class View(Spec):
    """What of a sample reaches the model."""

    normalize: Literal["half", "imagenet"] = "half"
    """half: to [-1, 1]; imagenet: by the mean and the deviation of its colours."""
    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Side of the central crop over the short side that the sample is scaled to, as
    0.875 for 224 of 256. None: all of the sample, scaled to the model's size."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How samples are scaled, to train on too; always over all pixels."""
    frame_stride: Annotated[int, Field(gt=0, le=1000)] = 1
    """Frames of the video from one frame of the clip to the next."""
    temporal_clips: Annotated[int, Field(gt=0, le=100)] = 1
    """Clips of each video, evenly spread, that evaluation averages logits over."""
    spatial_crops: Literal[1, 3] = 1
    """1: the centre; 3: along the longer side too."""
    max_unreadable: Share = 0.01
    """Share of samples that may be broken, short or missing; more fail the trial."""


class FewShot(Spec):
    """The ridge probe on frozen features; facts in docs/accuracy.md."""

    shots: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}(,[1-9]\d{0,3}){0,19}$")] = (
        "1,5,10,25"
    )
    """Labelled training samples of each class; several numbers share the features."""
    seeds: Annotated[int, Field(gt=0, le=100)] = 3
    """Draws of those samples, with `convention: big_vision`."""
    convention: Literal["big_vision", "scenic"] = "big_vision"
    """big_vision: random samples, several draws. scenic: the first ones, one draw."""
    l2: PositiveFloat = 1024.0
    """Weight of the penalty."""

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of `shots`, each once, rising."""
        return tuple(sorted({int(word) for word in self.shots.split(",")}))

    @property
    def draws(self) -> int:
        return self.seeds if self.convention == "big_vision" else 1

    @property
    def main_metric(self) -> str:
        """That of 5 shots, which the publication gives, or else of the most."""
        counts = self.counts
        return fewshot_metric(5 if 5 in counts else counts[-1])


def fewshot_metric(shots: int) -> str:
    """What the accuracy is called that so many samples of each class lead to."""
    return f"fewshot_{shots}_top1_percent"


class Checkpoint(Spec):
    """Weights that the model starts from."""

    path: Label
    """A file, or a URL of fsspec."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of the file; found when the suite is loaded."""
    tubelets: Literal["central", "inflation"] = "central"
    """How the kernel of an image model becomes that of a model of clips."""
