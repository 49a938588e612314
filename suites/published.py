"""The numbers and claims of the TokenLearner and ViViT publications, as data.

Every row of the tables, and of the figures that could be read, stands here as it is
printed, with the model that `parse_model` builds for it. The publications counted
TokenLearner v1 and the TokenFuser of 2021; `tlbench.models.cost.published_flops` counts
in their way. What they do not print, such as resolutions and depths, was found by
matching their GFLOPS; `docs/publication.md` holds the numbers beside ours.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model

Dataset = Literal[
    "imagenet",
    "kinetics400",
    "kinetics600",
    "epic_kitchens",
    "charades_6fps",
    "charades_12fps",
    "avid",
]
PUBLISHED_CLASSES: dict[Dataset, int] = {
    "imagenet": 1000,
    "kinetics400": 400,
    "kinetics600": 600,
    "charades_6fps": 157,
    "charades_12fps": 157,
    "avid": 887,
}
"""Classes of the data sets; EPIC-Kitchens has several classifiers and is not here."""
JFT_NUM_CLASSES = 18_291
"""Of JFT-300M, on which the models were trained first."""

Score = Literal[
    "top1_percent",
    "top5_percent",
    "real_percent",
    "five_shot_percent",
    "mean_five_shot_percent",
    "map_percent",
    "mean_accuracy_percent",
    "action_percent",
]
SCORES: tuple[Score, ...] = get_args(Score)
"""The fields of a row that say how good a model is."""


@dataclass(frozen=True)
class Reading:
    """How far a value that was read off a figure may lie from the plotted one."""

    gflops: float
    percent: float


@dataclass(frozen=True)
class Source:
    """A table, a figure or a passage, and what holds for all of its rows."""

    name: str
    about: str
    dataset: Dataset
    reading: Reading | None = None
    """Of a figure; None where the values are printed, or the error is not known."""


@dataclass(frozen=True)
class Misprint:
    """Something printed or read that cannot be right, or contradicts another table."""

    field: Literal["label", "gflops", "top1_percent"]
    reason: str
    labelled_model: str | None = None
    """What a wrong label would mean; the row's numbers are those of its `model`."""


@dataclass(frozen=True)
class PublishedResult:
    """One row of a table, as printed: 3.4 stands for anything from 3.35 to 3.45."""

    source: Source
    label: str
    """What the publication calls it."""
    model: str | None = None
    """Our name for it, in its canonical form; None where there is no such model."""
    _: KW_ONLY
    gflops: float | None = None
    """Multiply-adds and half of all other operations, per image or view; a module's
    own in the studies of modules. Without a point where it is printed without one. One
    is derived: 3981 of ViViT-H/14x2, a twelfth of the 47.77 TFLOPs of its 12 views."""
    views: int | None = None
    """Crops of a video over which a prediction is averaged."""
    params_millions: float | None = None
    params_image_size: int | None = None
    """Where the parameters were counted at another image size than `model` has."""
    params_num_classes: int | None = None
    """Where they were counted with another classifier than that of the data set; 0 is
    none."""
    run_time_ms: float | None = None
    top1_percent: float | None = None
    top5_percent: float | None = None
    real_percent: float | None = None
    """Top-1 on the reassessed labels of ImageNet (ReaL)."""
    five_shot_percent: float | None = None
    """Top-1 of a linear probe on five images of each class."""
    mean_five_shot_percent: float | None = None
    """Mean of that over nine data sets, ImageNet among them."""
    map_percent: float | None = None
    """Mean average precision over the classes."""
    mean_accuracy_percent: float | None = None
    """Mean over the classes of the accuracy on each."""
    action_percent: float | None = None
    """Top-1 of verb and noun together."""
    misprint: Misprint | None = None

    @property
    def gflops_error(self) -> float | None:
        """How far the true value may lie from the printed or read one."""
        if self.gflops is None:
            return None
        reading = self.source.reading
        return half_a_digit(self.gflops) if reading is None else reading.gflops

    def params_counted_on(self) -> tuple[ModelSpec, int]:
        """The model and the number of classes whose parameters are published."""
        assert self.model is not None, f"{self.label} cannot be built"
        spec, num_classes = parse_model(self.model), self.params_num_classes
        if self.params_image_size is not None:
            spec = spec.model_copy(update={"image_size": self.params_image_size})
        if num_classes is None:
            num_classes = PUBLISHED_CLASSES[self.source.dataset]
        return spec, num_classes


def half_a_digit(printed: float) -> float:
    """Half a unit in the last digit of a number as it is printed.

    A float keeps no zeros at its end but the first: 0.30 is taken for 0.3.
    """
    decimals = len(str(printed).partition(".")[2])
    return 0.5 * 10.0**-decimals


def default_num_classes(spec: ModelSpec) -> int:
    """Those of ImageNet for a model of images, of Kinetics-400 for one of clips."""
    return PUBLISHED_CLASSES["imagenet" if spec.video is None else "kinetics400"]


def published_for(model: str) -> tuple[PublishedResult, ...]:
    """All rows of the model with this canonical name, in the order of the sources."""
    return tuple(result for result in RESULTS if result.model == model)


def published_in(source: Source) -> tuple[PublishedResult, ...]:
    """All rows of one table, figure or passage."""
    return tuple(result for result in RESULTS if result.source == source)


# ---------------------------------------------------------------- sources
# TokenLearner: Ryoo et al. 2021 (arXiv 2106.11297). ViViT: Arnab et al. 2021
# (arXiv 2103.15691).

T1 = Source(
    "TokenLearner, table 1",
    "Pre-trained on JFT-300M, fine-tuned on ImageNet at 384 pixels",
    "imagenet",
)
T1_SCATTER = Source(
    "TokenLearner, figure of table 1",
    "A point without a label, read off to an error that is not known",
    "imagenet",
)
T2 = Source("TokenLearner, table 2", "L models, fine-tuned at 512 pixels", "imagenet")
T3 = Source(
    "TokenLearner, table 3", "Against the largest models of its time", "imagenet"
)
T4 = Source("TokenLearner, table 4", "With and without TokenFuser", "imagenet")
T5 = Source("TokenLearner, table 5", "Against pooling, at 512 pixels", "imagenet")
PLACEMENT = Source(
    "TokenLearner, figure 4",
    "Place of TokenLearner in B/16 at 224 pixels, 5-shot after JFT-300M",
    "imagenet",
    Reading(gflops=0.03, percent=0.2),
)
FEW_SHOT = Source(
    "TokenLearner, few-shot figure",
    "5-shot accuracy against compute at 224 pixels, after JFT-300M",
    "imagenet",
    Reading(gflops=0.05, percent=0.2),
)
FUSER_FIGURE = Source(
    "TokenLearner, figure of fusers",
    "Ways back to all patches, in B/16 at 384 pixels with TokenLearner at 6",
    "imagenet",
    Reading(gflops=0.05, percent=0.05),
)
TOKENISERS = Source(
    "TokenLearner, section 6.3",
    "Other ways to few tokens, in the video module",
    "charades_6fps",
)
T6 = Source("TokenLearner, table 6", "Kinetics-400, per view", "kinetics400")
T7 = Source("TokenLearner, table 7", "Kinetics-400, with all views", "kinetics400")
T8 = Source("TokenLearner, table 8", "Kinetics-600, with all views", "kinetics600")
T9 = Source("TokenLearner, table 9", "Charades, 12 frames a second", "charades_12fps")
T10 = Source("TokenLearner, table 10", "AViD", "avid")
MODULES_6 = Source(
    "TokenLearner, tables 11 and 12, Charades 6 fps",
    "Modules in X(2+1)D; GFLOPs and parameters of the module, 64 frames",
    "charades_6fps",
)
MODULES_12 = Source(
    "TokenLearner, tables 11 and 12, Charades 12 fps", MODULES_6.about, "charades_12fps"
)
MODULES_AVID = Source("TokenLearner, tables 11 and 12, AViD", MODULES_6.about, "avid")
VIVIT_MODELS = Source("ViViT, models 1 to 4", "B/16x2 at 224 pixels", "kinetics400")
VIVIT_MODELS_EPIC = Source(
    "ViViT, models 1 to 4, EPIC-Kitchens", VIVIT_MODELS.about, "epic_kitchens"
)
VIVIT_TEMPORAL = Source(
    "ViViT, temporal depth", "B/16x2, model 2, by its blocks over time", "kinetics400"
)
VIVIT_CROPS = Source("ViViT, crops", "L/16x2, model 1, by image size", "kinetics400")
VIVIT_EMBEDDING = Source(
    "ViViT, input encoding", "How a clip is embedded, by its start", "kinetics400"
)
VIVIT_K400 = Source("ViViT, Kinetics-400", "Final results", "kinetics400")
VIVIT_K600 = Source("ViViT, Kinetics-600", "Final results", "kinetics600")

# ---------------------------------------------------------------- misprints

_B32 = Misprint("gflops", "B/32 at 384 pixels has 13.0; no usual image size gives 19.8")
_T2_178 = Misprint(
    "gflops", "T4 and T5 print 184.6 for the same model, T5 with the same accuracy"
)
_TL16_B16 = Misprint(
    "top1_percent",
    "T1 prints 83.65 and T4 83.2 for the same model; which is right is not known",
)
_VIVIT_H = Misprint(
    "gflops", "with a class token H/16x2 has 2800 and H/14x2 3981; neither is 8316"
)
_PLACE_0 = Misprint(
    "gflops",
    "read off the figure as 0.78, to 0.03; the model has 0.812: the reading may be off,"
    " or the figure",
)
_T5_BASE = Misprint("label", "the numbers are those of L/16", "ViT-B/16@512")
_WINDOWS = "the windows are of 4x4, which leave 64 and then 4 of 1024 tokens"
_T5_POOL_9_18 = Misprint("label", _WINDOWS, "ViT-L/16@512+pool2@9,18")
_T5_POOL_12_18 = Misprint("label", _WINDOWS, "ViT-L/16@512+pool2@12,18")
_T5_POOL_12 = Misprint(
    "label",
    "the window is of 8x8, which leaves a grid of 4x4 tokens",
    "ViT-L/16@512+pool4@12",
)

# ---------------------------------------------------------------- images
# What a row is, then its numbers: a formatter would make eight lines of the two.
# fmt: off

_IMAGES = (
    # 384 pixels. The tokens and places were found by the GFLOPS.
    PublishedResult(T1, "ViT S/32", "ViT-S/32@384", gflops=3.4, top1_percent=77.87),
    PublishedResult(T1, "ViT B/32", "ViT-B/32@384",
                    gflops=19.8, top1_percent=80.69, misprint=_B32),
    PublishedResult(T1, "ViT B/16", "ViT-B/16@384", gflops=55.6, top1_percent=84.73),
    PublishedResult(T1, "TL S/32", "ViT-S/32@384+TL8v1@6",
                    gflops=1.9, top1_percent=76.13),
    PublishedResult(T1, "TL B/16", "ViT-B/16@384+TL16v1@6",
                    gflops=28.7, top1_percent=83.65, misprint=_TL16_B16),
    PublishedResult(T1, "TL S/32 (22)", "ViT-S/32[22]@384+TL8v1@11",
                    gflops=3.3, top1_percent=79.42),
    PublishedResult(T1, "TL B/32 (20)", "ViT-B/32[20]@384+TL8v1@10",
                    gflops=11.5, top1_percent=82.74),
    PublishedResult(T1, "TL B/16 (21)", "ViT-B/16[21]@384+TL8v1@10",
                    gflops=47.1, top1_percent=85.21),
    PublishedResult(T1, "16-TL B/16 (21)", "ViT-B/16[21]@384+TL16v1@10",
                    gflops=47.7, top1_percent=85.45),
    PublishedResult(T1_SCATTER, "unlabelled", gflops=2.8, top1_percent=77.8),
    # 512 pixels; 24+11 is 24 blocks of the base and 11 more after TokenLearner.
    PublishedResult(T2, "L/16", "ViT-L/16@512", gflops=363.1, top1_percent=87.35),
    PublishedResult(T2, "L/16, 16-TL at 12", "ViT-L/16@512+TL16v1@12",
                    gflops=178.1, top1_percent=87.68, misprint=_T2_178),
    PublishedResult(T2, "L/16 (24+11), 16-TL at 12", "ViT-L/16[35]@512+TL16v1@12",
                    gflops=186.8, top1_percent=87.47),
    PublishedResult(T2, "L/16 (24+6), 8-TL at 18", "ViT-L/16[30]@512+TL8v1@18",
                    gflops=274.2, top1_percent=88.11),
    PublishedResult(T2, "L/14 (24+11), 16-TL at 18", "ViT-L/14[35]@512+TL16v1@18",
                    gflops=361.6, top1_percent=88.37),
    # Parameters at 224 pixels: with the classifier of JFT-300M, or with none.
    PublishedResult(T3, "BiT-L",
                    params_millions=928, top1_percent=87.54, real_percent=90.54),
    PublishedResult(T3, "ViT-H/14", "ViT-H/14@518",
                    params_millions=654, params_image_size=224,
                    params_num_classes=JFT_NUM_CLASSES, top1_percent=88.55,
                    real_percent=90.72),
    PublishedResult(T3, "ViT-G/14", "ViT-G/14@518",
                    params_millions=1843, params_image_size=224, params_num_classes=0,
                    top1_percent=90.45, real_percent=90.81),
    PublishedResult(T3, "TL L/10 (24+11)", "ViT-L/10[35]@512+TL16v1@18",
                    params_millions=460, params_image_size=224,
                    params_num_classes=JFT_NUM_CLASSES, top1_percent=88.5,
                    real_percent=90.75),
    PublishedResult(T3, "TL L/8 (24+11)", "ViT-L/8[35]@512+TL16v1@18",
                    params_millions=460, params_image_size=224,
                    params_num_classes=JFT_NUM_CLASSES, top1_percent=88.87,
                    real_percent=91.05),
    # B/16 at 384 pixels, L at 512.
    PublishedResult(T4, "B/16, 8-TL at 6", "ViT-B/16@384+TL8v1@6",
                    gflops=28.3, top1_percent=83.2, real_percent=88.1),
    PublishedResult(T4, "B/16, 8-TL at 6, Fuser", "ViT-B/16@384+TL8v1fuse@6",
                    gflops=28.5, top1_percent=83.7, real_percent=88.4),
    PublishedResult(T4, "B/16, 16-TL at 6", "ViT-B/16@384+TL16v1@6",
                    gflops=28.7, top1_percent=83.2, real_percent=88.0,
                    misprint=_TL16_B16),
    PublishedResult(T4, "B/16, 16-TL at 6, Fuser", "ViT-B/16@384+TL16v1fuse@6",
                    gflops=29.1, top1_percent=83.9, real_percent=88.7),
    PublishedResult(T4, "L/16, 16-TL at 12", "ViT-L/16@512+TL16v1@12",
                    gflops=184.6, top1_percent=87.6, real_percent=90.4),
    PublishedResult(T4, "L/16, 16-TL at 12, Fuser", "ViT-L/16@512+TL16v1fuse@12",
                    gflops=187.1, top1_percent=87.6, real_percent=90.5),
    PublishedResult(T4, "L/16, 8-TL at 18", "ViT-L/16@512+TL8v1@18",
                    gflops=273.2, top1_percent=87.9, real_percent=90.8),
    PublishedResult(T4, "L/16, 8-TL at 18, Fuser", "ViT-L/16@512+TL8v1fuse@18",
                    gflops=273.8, top1_percent=88.2, real_percent=90.9),
    PublishedResult(T4, "L/10 (24+11), 16-TL at 18", "ViT-L/10[35]@512+TL16v1@18",
                    gflops=849.0, top1_percent=88.5, real_percent=90.7),
    PublishedResult(T4, "L/10 (24+11), 16-TL at 18, Fuser",
                    "ViT-L/10[35]@512+TL16v1fuse@18",
                    gflops=856.9, top1_percent=88.5, real_percent=90.9),
    # The windows were found by the GFLOPS.
    PublishedResult(T5, "Base ViT B/16", "ViT-L/16@512",
                    gflops=363.1, top1_percent=87.35, misprint=_T5_BASE),
    PublishedResult(T5, "2x2 pool at 9 and 18", "ViT-L/16@512+pool4@9,18",
                    gflops=144.3, top1_percent=85.63, misprint=_T5_POOL_9_18),
    PublishedResult(T5, "2x2 pool at 12 and 18", "ViT-L/16@512+pool4@12,18",
                    gflops=187.2, top1_percent=86.41, misprint=_T5_POOL_12_18),
    PublishedResult(T5, "4x4 pool at 12", "ViT-L/16@512+pool8@12",
                    gflops=184.4, top1_percent=83.93, misprint=_T5_POOL_12),
    PublishedResult(T5, "16-TL at 12", "ViT-L/16@512+TL16v1@12",
                    gflops=184.6, top1_percent=87.68),
    PublishedResult(PLACEMENT, "8 at 0", "ViT-B/16+TL8v1@0",
                    gflops=0.78, five_shot_percent=21.0, misprint=_PLACE_0),
    PublishedResult(PLACEMENT, "8 at 1/4", "ViT-B/16+TL8v1@3",
                    gflops=5.00, five_shot_percent=58.8),
    PublishedResult(PLACEMENT, "8 at 1/2", "ViT-B/16+TL8v1@6",
                    gflops=9.18, five_shot_percent=63.5),
    PublishedResult(PLACEMENT, "8 at 3/4", "ViT-B/16+TL8v1@9",
                    gflops=13.35, five_shot_percent=67.9),
    PublishedResult(PLACEMENT, "16 at 0", "ViT-B/16+TL16v1@0",
                    gflops=1.51, five_shot_percent=31.7),
    PublishedResult(PLACEMENT, "16 at 1/4", "ViT-B/16+TL16v1@3",
                    gflops=5.53, five_shot_percent=61.4),
    PublishedResult(PLACEMENT, "16 at 1/2", "ViT-B/16+TL16v1@6",
                    gflops=9.50, five_shot_percent=63.4),
    PublishedResult(PLACEMENT, "16 at 3/4", "ViT-B/16+TL16v1@9",
                    gflops=13.52, five_shot_percent=67.9),
    PublishedResult(PLACEMENT, "Base", "ViT-B/16",
                    gflops=17.53, five_shot_percent=62.9),
    PublishedResult(FEW_SHOT, "ViT-S/32", "ViT-S/32",
                    gflops=1.15, five_shot_percent=44.7, mean_five_shot_percent=72.5),
    PublishedResult(FEW_SHOT, "TL-S/32", "ViT-S/32+TL8v1@6",
                    gflops=0.69, five_shot_percent=44.3, mean_five_shot_percent=71.6),
    PublishedResult(FEW_SHOT, "TL-S/32 (22)", "ViT-S/32[22]+TL8v1@11",
                    gflops=1.15, five_shot_percent=50.7, mean_five_shot_percent=75.2),
    PublishedResult(FEW_SHOT, "ViT-B/32", "ViT-B/32",
                    gflops=4.35, five_shot_percent=51.9, mean_five_shot_percent=76.6),
    PublishedResult(FEW_SHOT, "TL-B/32 (20)", "ViT-B/32[20]+TL8v1@10",
                    gflops=4.22, five_shot_percent=61.0, mean_five_shot_percent=79.6),
    PublishedResult(FEW_SHOT, "ViT-B/16", "ViT-B/16",
                    gflops=17.56, five_shot_percent=62.9, mean_five_shot_percent=81.8),
    PublishedResult(FEW_SHOT, "TL-B/16", "ViT-B/16+TL16v1@6",
                    gflops=9.54, five_shot_percent=63.8, mean_five_shot_percent=81.2),
    PublishedResult(FEW_SHOT, "TL-B/16 (21)", "ViT-B/16[21]+TL8v1@10",
                    gflops=15.28, five_shot_percent=68.5, mean_five_shot_percent=83.1),
    PublishedResult(FUSER_FIGURE, "TokenFuser, 8-TL", "ViT-B/16@384+TL8v1fuse@6",
                    gflops=28.6, top1_percent=83.70),
    PublishedResult(FUSER_FIGURE, "TokenFuser, 16-TL", "ViT-B/16@384+TL16v1fuse@6",
                    gflops=29.2, top1_percent=83.91),
    PublishedResult(FUSER_FIGURE, "Unpool, 8-TL", gflops=28.6, top1_percent=82.77),
    PublishedResult(FUSER_FIGURE, "Unpool, 16-TL", gflops=29.2, top1_percent=83.08),
    PublishedResult(FUSER_FIGURE, "Reprojection, 8-TL",
                    gflops=32.8, top1_percent=83.65),
    PublishedResult(FUSER_FIGURE, "Reprojection, 16-TL",
                    gflops=33.4, top1_percent=83.92),
)

# ---------------------------------------------------------------- video

_VIDEO = (
    PublishedResult(TOKENISERS, "8 fixed tokens per frame", map_percent=58.8),
    PublishedResult(TOKENISERS, "tokens of a fully connected layer", map_percent=56.6),
    PublishedResult(TOKENISERS, "pooling over frames to tokens", map_percent=58.6),
    PublishedResult(TOKENISERS, "Conv2D + TL", map_percent=59.6),
    # The authors' models are ViViT's model 1; what is quoted has a class token.
    PublishedResult(T6, "ViViT-L/16 (quoted)", "ViViT-L/16x2:token",
                    gflops=1446, top1_percent=82.8, top5_percent=95.5),
    PublishedResult(T6, "ViViT-L/16 320 (quoted)", "ViViT-L/16x2@320:token",
                    gflops=3992, top1_percent=83.5, top5_percent=95.5),
    PublishedResult(T6, "ViViT-H/16 (quoted)", "ViViT-H/16x2:token",
                    gflops=8316, top1_percent=84.8, top5_percent=95.8,
                    misprint=_VIVIT_H),
    PublishedResult(T6, "ViViT-L/16 (own run)", "ViViT-L/16x2",
                    gflops=1446, top1_percent=83.4, top5_percent=95.6),
    PublishedResult(T6, "TL 16at12 + L/16", "ViViT-L/16x2+TL16v1@12",
                    gflops=766, top1_percent=83.5, top5_percent=95.6),
    PublishedResult(T6, "TL 8at18 + L/16", "ViViT-L/16x2[30]+TL8v1@18",
                    gflops=1105, top1_percent=84.5, top5_percent=96.1),
    PublishedResult(T6, "TL 16at18 + L/14", "ViViT-L/14x2[35]+TL16v1@18",
                    gflops=1621, top1_percent=84.7, top5_percent=96.1),
    PublishedResult(T6, "TL 16at18 + L/10", "ViViT-L/10x2[35]+TL16v1@18",
                    gflops=4076, top1_percent=85.4, top5_percent=96.3),
    PublishedResult(T7, "R(2+1)D", gflops=304, views=115, top1_percent=73.9),
    PublishedResult(T7, "SlowFast 16x8 R101+NL",
                    gflops=234, views=30, top1_percent=79.8),
    PublishedResult(T7, "TimeSformer-L", gflops=2380, views=3, top1_percent=80.7),
    PublishedResult(T7, "ViViT-L/16", "ViViT-L/16x2:token",
                    gflops=1446, views=12, top1_percent=82.8),
    PublishedResult(T7, "Swin-L", gflops=604, views=12, top1_percent=83.1),
    PublishedResult(T7, "Swin-L (384)", gflops=2107, views=12, top1_percent=84.6),
    PublishedResult(T7, "Swin-L (384)", gflops=2107, views=50, top1_percent=84.9),
    PublishedResult(T7, "TL 16at12 L/16", "ViViT-L/16x2+TL16v1@12",
                    gflops=766, views=6, top1_percent=82.1),
    PublishedResult(T7, "TL 8at18 L/16", "ViViT-L/16x2[30]+TL8v1@18",
                    gflops=1105, views=6, top1_percent=83.2),
    PublishedResult(T7, "TL 16at12 L/16", "ViViT-L/16x2+TL16v1@12",
                    gflops=766, views=12, top1_percent=83.5),
    PublishedResult(T7, "TL 8at18 L/16", "ViViT-L/16x2[30]+TL8v1@18",
                    gflops=1105, views=12, top1_percent=84.5),
    PublishedResult(T7, "TL 16at18 L/14", "ViViT-L/14x2[35]+TL16v1@18",
                    gflops=1621, views=12, top1_percent=84.7),
    PublishedResult(T7, "TL 16at18 L/10", "ViViT-L/10x2[35]+TL16v1@18",
                    gflops=4076, views=12, top1_percent=85.4),
    PublishedResult(T8, "SlowFast R101+NL",
                    gflops=234, views=30, top1_percent=81.8, top5_percent=95.1),
    PublishedResult(T8, "X3D-XL",
                    gflops=48, views=30, top1_percent=81.9, top5_percent=95.5),
    PublishedResult(T8, "TimeSformer-HR",
                    gflops=1703, views=3, top1_percent=82.4, top5_percent=96.0),
    PublishedResult(T8, "ViViT-L/16", "ViViT-L/16x2:token",
                    gflops=1446, views=12, top1_percent=84.3, top5_percent=96.2),
    PublishedResult(T8, "Swin-B",
                    gflops=282, views=12, top1_percent=84.0, top5_percent=96.5),
    PublishedResult(T8, "Swin-L (384)",
                    gflops=2107, views=12, top1_percent=85.9, top5_percent=97.1),
    PublishedResult(T8, "Swin-L (384)",
                    gflops=2107, views=50, top1_percent=86.1, top5_percent=97.3),
    PublishedResult(T8, "TL 16at12 L/16", "ViViT-L/16x2+TL16v1@12",
                    gflops=766, views=12, top1_percent=84.4, top5_percent=96.0),
    PublishedResult(T8, "TL 8at18 L/16", "ViViT-L/16x2[30]+TL8v1@18",
                    gflops=1105, views=12, top1_percent=86.0, top5_percent=97.0),
    PublishedResult(T8, "TL 16at18 L/10", "ViViT-L/10x2[35]+TL16v1@18",
                    gflops=4076, views=12, top1_percent=86.1, top5_percent=97.0),
    PublishedResult(T8, "TL 16at18 with Fuser L/10", "ViViT-L/10x2[35]+TL16v1fuse@18",
                    gflops=4100, views=12, top1_percent=86.3, top5_percent=97.0),
    PublishedResult(T9, "I3D", map_percent=32.9),
    PublishedResult(T9, "I3D", map_percent=35.5),
    PublishedResult(T9, "I3D+NL", map_percent=37.5),
    PublishedResult(T9, "EvaNet", map_percent=38.1),
    PublishedResult(T9, "STRG", map_percent=39.7),
    PublishedResult(T9, "LFB-101", map_percent=42.5),
    PublishedResult(T9, "SGFB-101", map_percent=44.3),
    PublishedResult(T9, "SlowFast-101", map_percent=45.2),
    PublishedResult(T9, "AssembleNet-50", map_percent=47.0),
    PublishedResult(T9, "MViT", map_percent=47.7),
    PublishedResult(T9, "AssembleNet-101", map_percent=58.6),
    PublishedResult(T9, "AssembleNet++", map_percent=55.0),
    PublishedResult(T9, "MoViNets", map_percent=63.2),
    PublishedResult(T9, "X(2+1)D-M", map_percent=62.7),
    PublishedResult(T9, "TL", map_percent=66.3),
    PublishedResult(T10, "I3D", gflops=108, mean_accuracy_percent=46.5),
    PublishedResult(T10, "(2+1)D-R50",
                    gflops=152, views=115, mean_accuracy_percent=46.7),
    PublishedResult(T10, "3D-R50", mean_accuracy_percent=47.9),
    PublishedResult(T10, "SlowFast-50 8x8",
                    gflops=65.7, views=30, mean_accuracy_percent=50.2),
    PublishedResult(T10, "SlowFast-101 16x4",
                    gflops=213, views=30, mean_accuracy_percent=50.8),
    PublishedResult(T10, "X(2+1)D-M", gflops=532, views=1, mean_accuracy_percent=48.6),
    PublishedResult(T10, "X(2+1)D-M + disjoint space/time transformer",
                    gflops=493, views=1, mean_accuracy_percent=50.6),
    PublishedResult(T10, "TL", gflops=487, views=1, mean_accuracy_percent=53.8),
    PublishedResult(MODULES_6, "joint space-time MHSA",
                    gflops=22.0, params_millions=0.30, map_percent=57.9),
    PublishedResult(MODULES_6, "Conv2D + joint MHSA",
                    gflops=35.8, params_millions=1.98, map_percent=58.6),
    PublishedResult(MODULES_6, "TL",
                    gflops=3.4, params_millions=0.81, map_percent=58.8),
    PublishedResult(MODULES_6, "Conv2D + TL",
                    gflops=17.2, params_millions=2.49, map_percent=59.6),
    PublishedResult(MODULES_6, "Conv2D + Conv1D",
                    gflops=18.3, params_millions=2.24, map_percent=56.6),
    PublishedResult(MODULES_6, "Conv2D + MLPMixer",
                    gflops=13.8, params_millions=2.06, map_percent=57.0),
    PublishedResult(MODULES_6, "Conv2D + temporal transformer",
                    gflops=16.5, params_millions=1.98, map_percent=58.4),
    PublishedResult(MODULES_6, "spatial + temporal transformer",
                    gflops=5.5, params_millions=0.59, map_percent=58.8),
    PublishedResult(MODULES_6, "Conv2D + spatial + temporal transformer",
                    gflops=19.2, params_millions=2.27, map_percent=58.0),
    PublishedResult(MODULES_6, "spatial transformer + TL",
                    gflops=6.2, params_millions=1.11, map_percent=58.9),
    PublishedResult(MODULES_12, "joint space-time MHSA",
                    gflops=22.0, params_millions=0.30, map_percent=64.0),
    PublishedResult(MODULES_12, "Conv2D + joint MHSA",
                    gflops=35.8, params_millions=1.98, map_percent=62.5),
    PublishedResult(MODULES_12, "TL",
                    gflops=3.4, params_millions=0.81, map_percent=63.4),
    PublishedResult(MODULES_12, "Conv2D + TL",
                    gflops=17.2, params_millions=2.49, map_percent=66.3),
    PublishedResult(MODULES_AVID, "joint space-time MHSA",
                    gflops=22.0, params_millions=0.30, mean_accuracy_percent=53.3),
    PublishedResult(MODULES_AVID, "Conv2D + joint MHSA",
                    gflops=35.8, params_millions=1.98, mean_accuracy_percent=52.5),
    PublishedResult(MODULES_AVID, "TL",
                    gflops=3.4, params_millions=0.81, mean_accuracy_percent=53.8),
    PublishedResult(MODULES_AVID, "Conv2D + TL",
                    gflops=17.2, params_millions=2.49, mean_accuracy_percent=53.7),
)

# ---------------------------------------------------------------- ViViT

_VIVIT = (
    PublishedResult(VIVIT_MODELS, "Model 1: spatio-temporal", "ViViT-B/16x2:token",
                    gflops=455.2, params_millions=88.9, run_time_ms=58.9,
                    top1_percent=80.0),
    PublishedResult(VIVIT_MODELS, "Model 2: factorised encoder",
                    "ViViT-B/16x2:encoder:token",
                    gflops=284.4, params_millions=115.1, run_time_ms=17.4,
                    top1_percent=78.8),
    PublishedResult(VIVIT_MODELS, "Model 3: factorised self-attention",
                    "ViViT-B/16x2:attention",
                    gflops=372.3, params_millions=117.3, run_time_ms=31.7,
                    top1_percent=77.4),
    PublishedResult(VIVIT_MODELS, "Model 4: factorised dot-product",
                    "ViViT-B/16x2:dotproduct",
                    gflops=277.1, params_millions=88.9, run_time_ms=22.9,
                    top1_percent=76.3),
    # A mean over time in the place of the second encoder; no model of ours.
    PublishedResult(VIVIT_MODELS, "Average pool",
                    gflops=283.9, params_millions=86.7, run_time_ms=17.3,
                    top1_percent=75.8),
    PublishedResult(VIVIT_MODELS_EPIC, "Model 1: spatio-temporal", "ViViT-B/16x2:token",
                    action_percent=43.1),
    PublishedResult(VIVIT_MODELS_EPIC, "Model 2: factorised encoder",
                    "ViViT-B/16x2:encoder:token",
                    action_percent=43.7),
    PublishedResult(VIVIT_MODELS_EPIC, "Model 3: factorised self-attention",
                    "ViViT-B/16x2:attention",
                    action_percent=39.1),
    PublishedResult(VIVIT_MODELS_EPIC, "Model 4: factorised dot-product",
                    "ViViT-B/16x2:dotproduct",
                    action_percent=39.5),
    PublishedResult(VIVIT_MODELS_EPIC, "Average pool", action_percent=38.8),
    PublishedResult(VIVIT_TEMPORAL, "0", top1_percent=75.8),
    PublishedResult(VIVIT_TEMPORAL, "1", "ViViT-B/16x2:encoder1:token",
                    top1_percent=78.6),
    PublishedResult(VIVIT_TEMPORAL, "4", "ViViT-B/16x2:encoder:token",
                    top1_percent=78.8),
    PublishedResult(VIVIT_TEMPORAL, "8", "ViViT-B/16x2:encoder8:token",
                    top1_percent=78.8),
    PublishedResult(VIVIT_TEMPORAL, "12", "ViViT-B/16x2:encoder12:token",
                    top1_percent=78.9),
    PublishedResult(VIVIT_CROPS, "224", "ViViT-L/16x2:token",
                    gflops=1446, top1_percent=80.3),
    PublishedResult(VIVIT_CROPS, "288", "ViViT-L/16x2@288:token",
                    gflops=2919, top1_percent=80.7),
    PublishedResult(VIVIT_CROPS, "320", "ViViT-L/16x2@320:token",
                    gflops=3992, top1_percent=81.0),
    PublishedResult(VIVIT_EMBEDDING, "uniform frames", top1_percent=78.5),
    PublishedResult(VIVIT_EMBEDDING, "tubelets, random", top1_percent=73.2),
    PublishedResult(VIVIT_EMBEDDING, "tubelets, inflation", top1_percent=77.6),
    PublishedResult(VIVIT_EMBEDDING, "tubelets, central frame", top1_percent=79.2),
    PublishedResult(VIVIT_K400, "L/16x2 FE, 32 frames", "ViViT-L/16x2:encoder:token",
                    gflops=995.3),
    PublishedResult(VIVIT_K400, "L/16x2 FE, 128 frames",
                    "ViViT-L/16x2@224x128:encoder:token", gflops=3980.4),
    # Of the frames that these saw, nothing is known here.
    PublishedResult(VIVIT_K400, "L/16x2 FE", views=1, top1_percent=80.6),
    PublishedResult(VIVIT_K400, "L/16x2 FE", views=3, top1_percent=81.7),
    PublishedResult(VIVIT_K400, "L/16x2 FE, JFT", top1_percent=83.5),
    # Derived from the 47.77 TFLOPs that are printed for the 12 views.
    PublishedResult(VIVIT_K400, "H/14x2, JFT", "ViViT-H/14x2:token", gflops=3981,
                    views=12, top1_percent=84.9, top5_percent=95.8),
    PublishedResult(VIVIT_K600, "L/16x2 FE", top1_percent=82.9),
    PublishedResult(VIVIT_K600, "L/16x2 FE, JFT", top1_percent=84.3),
    PublishedResult(VIVIT_K600, "H/14x2, JFT", "ViViT-H/14x2:token", top1_percent=85.8),
)

# fmt: on

RESULTS: tuple[PublishedResult, ...] = (*_IMAGES, *_VIDEO, *_VIVIT)
"""Every published row, in the order of the sources."""

# ---------------------------------------------------------------- claims

Ground = Literal["exact", "measured", "proxy", "quoted"]
"""What can decide a claim: arithmetic and tests, timing and memory on a machine,
training on small data in the place of JFT-300M, or nothing but the publication."""

ClaimedMetric = Literal[
    "tokens",
    "tokens_after",
    "gflops",
    "gflops_ratio",
    "params_ratio",
    "block_macs_ratio",
    "later_blocks_share",
    "five_shot_points",
    "top1_points",
    "real_points",
    "top1_percent",
    "map_percent",
    "mean_accuracy_percent",
]
"""`tokens` enter the first block, `tokens_after` the last. A ratio is the number of the
model over that of the baseline, points are its percent less the baseline's.
`block_macs_ratio` is the first block's MACs over the last one's, `later_blocks_share`
the share of the blocks behind TokenLearner in the model's `gflops`."""


@dataclass(frozen=True)
class ClaimedNumber:
    """A number that a claim stands on, to the digits given."""

    metric: ClaimedMetric
    value: float
    model: str | None = None
    baseline: str | None = None
    dataset: Dataset | None = None
    """What the metric was measured on, where that does not follow from the claim; a
    model that cannot be built is known by it alone."""


@dataclass(frozen=True)
class Claim:
    """A testable statement about TokenLearner."""

    id: str
    statement: str
    check: str
    """What is counted, measured or compared to decide it."""
    grounds: tuple[Ground, ...]
    numbers: tuple[ClaimedNumber, ...] = ()
    sources: tuple[Source, ...] = ()
    """The tables and figures that stand behind it, besides `CLAIMS_SOURCE`."""
    caveat: str | None = None
    """What the published numbers themselves say against it, or leave open."""


CLAIMS_SOURCE = "Google Research blog, 7 December 2021"

_B16, _G14 = "ViT-B/16", "ViT-G/14@518"
_L10, _L8 = "ViT-L/10[35]@512+TL16v1@18", "ViT-L/8[35]@512+TL16v1@18"
_VIVIT_16AT12, _VIVIT_8AT18 = "ViViT-L/16x2+TL16v1@12", "ViViT-L/16x2[30]+TL8v1@18"

CLAIMS = (
    Claim(
        "C1",
        "An image of 512 pixels in patches of 16 is 1024 tokens.",
        "Tokens of the first block.",
        ("exact",),
        (
            ClaimedNumber("tokens", 1024, "ViT-B/16@512"),
            ClaimedNumber("tokens", 196, _B16),
            ClaimedNumber("tokens", 576, "ViT-B/16@384"),
        ),
    ),
    Claim(
        "C2",
        "In tubelets of 16x16x2, clips are thousands to tens of thousands of tokens.",
        "Tokens of the first block.",
        ("exact",),
        (
            ClaimedNumber("tokens", 3136, "ViViT-B/16x2"),
            ClaimedNumber("tokens", 16_384, "ViViT-B/16x2@512"),
        ),
    ),
    Claim(
        "C3",
        "The cost of a transformer grows with the square of its tokens.",
        "MACs of the blocks, with a term in the square of the tokens; the power of the"
        " tokens with which the time of a step grows, above 1.5.",
        ("exact", "measured"),
        caveat="The linear term is the larger one at usual sizes: attention between"
        " tokens is 4 % of a block of B/16 at 224 pixels, 18 % at 512.",
    ),
    Claim(
        "C4",
        "TokenLearner computes a map over the positions for each token, multiplies the"
        " input by it and pools; all tokens at once, trained end to end, with"
        " parameters of their own.",
        "By the formula of v1: the number of tokens, maps that all differ, a filter for"
        " each map alone, and tokens that follow all weights.",
        ("exact",),
    ),
    Claim(
        "C5",
        "That is a soft selection of positions and a global pooling.",
        "Weights of v1, all between 0 and 1; those of v1.1, which sum to 1 over the"
        " positions.",
        ("exact",),
        caveat="The weights of v1 are sigmoids, which sum to anything.",
    ),
    Claim(
        "C6",
        "The tokens adapt to the input, as a uniform split does not.",
        "Variance of the maps over images; accuracy against pooled, random and strided"
        " tokens is shown and does not decide.",
        ("proxy",),
        sources=(T5, TOKENISERS),
    ),
    Claim(
        "C7",
        "It works inside ViT and ViViT, at any layer.",
        "Tokens of every block, for every place in ViT-B/16 and ViViT-B/16x2.",
        ("exact",),
    ),
    Claim(
        "C8",
        "Its place trades accuracy against compute.",
        "GFLOPS with 8 and 16 tokens at 0, 1/4, 1/2 and 3/4, which rise with the place;"
        " accuracy at the latest place, above that at the earliest.",
        ("exact", "proxy"),
        sources=(PLACEMENT,),
    ),
    Claim(
        "C9",
        "At 1/4, the accuracy is almost that of the base, at under a third of its"
        " compute.",
        "Ratio of GFLOPS, below 1/3; points lost, fewer than 1.5. Against it are only"
        " more than the published with as many tokens: 1.5 with 16, 4.1 with 8.",
        ("exact", "proxy"),
        (
            ClaimedNumber("gflops_ratio", 0.285, "ViT-B/16+TL8v1@3", _B16),
            ClaimedNumber("gflops_ratio", 0.315, "ViT-B/16+TL16v1@3", _B16),
            ClaimedNumber("five_shot_points", -4.1, "ViT-B/16+TL8v1@3", _B16),
            ClaimedNumber("five_shot_points", -1.5, "ViT-B/16+TL16v1@3", _B16),
        ),
        (PLACEMENT,),
        "With 8 tokens 4.1 points are lost: almost the same is fair for 16 alone. The"
        " paper says it of 1/2.",
    ),
    Claim(
        "C10",
        "At 3/4, it is more accurate than the base, and faster.",
        "Ratio of GFLOPS; accuracy gained; throughput, higher beyond the noise.",
        ("exact", "proxy", "measured"),
        (
            ClaimedNumber("gflops_ratio", 0.762, "ViT-B/16+TL8v1@9", _B16),
            ClaimedNumber("gflops_ratio", 0.772, "ViT-B/16+TL16v1@9", _B16),
            ClaimedNumber("five_shot_points", 5.0, "ViT-B/16+TL8v1@9", _B16),
            ClaimedNumber("five_shot_points", 5.0, "ViT-B/16+TL16v1@9", _B16),
        ),
        (PLACEMENT,),
    ),
    Claim(
        "C11",
        "After TokenLearner, with 8 tokens in the place of 196, compute is almost"
        " nothing.",
        "Cost of a block on 8 tokens; share of all blocks behind TokenLearner.",
        ("exact",),
        (
            ClaimedNumber("block_macs_ratio", 25.5, "ViT-B/16+TL8v1@6"),
            ClaimedNumber("later_blocks_share", 0.037, "ViT-B/16+TL8v1@6"),
        ),
        (PLACEMENT,),
    ),
    Claim(
        "C12",
        "Half or more of memory and compute is saved, without a loss of accuracy.",
        "At 1/2: GFLOPS and training memory without weights and optimiser states, each"
        " at most 0.55 of the base's; points lost, fewer than 0.5. Throughput and the"
        " memory of inference are shown and do not decide.",
        ("exact", "measured", "proxy"),
        (ClaimedNumber("gflops_ratio", 0.523, "ViT-B/16+TL8v1@6", _B16),),
        (PLACEMENT,),
        "At 1/2, a little less than half of the compute is saved.",
    ),
    Claim(
        "C13",
        "With TokenLearner at 1/2 and 3/4, ViTs reach more for their compute.",
        "Points lost beside the same model without, fewer than 0.5 at both places; no"
        " plain model of as few MACs that is more accurate.",
        ("proxy",),
        sources=(T1, FEW_SHOT),
    ),
    Claim(
        "C14",
        "L/10 and L/8 with TokenLearner match G/14 and its 48 layers, with far fewer"
        " parameters and less compute.",
        "Ratios of parameters and GFLOPS; the accuracies are quoted.",
        ("exact", "quoted"),
        (
            ClaimedNumber("params_ratio", 0.25, _L10, _G14),
            ClaimedNumber("params_ratio", 0.25, _L8, _G14),
            ClaimedNumber("gflops_ratio", 0.30, _L10, _G14),
            ClaimedNumber("gflops_ratio", 0.55, _L8, _G14),
            ClaimedNumber("top1_points", -1.95, _L10, _G14),
            ClaimedNumber("top1_points", -1.58, _L8, _G14),
            ClaimedNumber("real_points", -0.06, _L10, _G14),
            ClaimedNumber("real_points", 0.24, _L8, _G14),
        ),
        (T3,),
        "On ImageNet itself G/14 is 1.6 to 2.0 points better. The blog gives these"
        " models 24 layers, the paper 24+11; how the blog counts FLOPs is not known."
        " The ratio of parameters is of the published counts, whose classifiers differ;"
        " with 1,000 classes it is 0.24.",
    ),
    Claim(
        "C15",
        "A clip becomes 8 or 16 tokens for each step of time.",
        "Tokens of the last block.",
        ("exact",),
        (
            ClaimedNumber("tokens_after", 128, _VIVIT_8AT18),
            ClaimedNumber("tokens_after", 256, _VIVIT_16AT12),
        ),
    ),
    Claim(
        "C16",
        "ViViT with TokenLearner is better than ViViT, at a lower cost.",
        "GFLOPS; accuracy on a small set of clips.",
        ("exact", "proxy"),
        (
            ClaimedNumber("gflops", 766, _VIVIT_16AT12),
            ClaimedNumber("gflops", 1105, _VIVIT_8AT18),
            ClaimedNumber("gflops", 1446, "ViViT-L/16x2:token"),
        ),
        (T6,),
        "Against the authors' own run of ViViT-L/16, 16 tokens at 12 gain 0.1 points.",
    ),
    Claim(
        "C17",
        "It was the best on Kinetics-400 and -600, Charades and AViD: above earlier"
        " transformers on Kinetics, above CNNs on the others.",
        "Quoted; the state of November 2021.",
        ("quoted",),
        (
            ClaimedNumber(
                "top1_percent",
                85.4,
                "ViViT-L/10x2[35]+TL16v1@18",
                dataset="kinetics400",
            ),
            ClaimedNumber(
                "top1_percent",
                86.3,
                "ViViT-L/10x2[35]+TL16v1fuse@18",
                dataset="kinetics600",
            ),
            ClaimedNumber("map_percent", 66.3, dataset="charades_12fps"),
            ClaimedNumber("mean_accuracy_percent", 53.8, dataset="avid"),
        ),
        (T7, T8, T9, T10),
        "The code of the X(2+1)D models of Charades and AViD was never published.",
    ),
    Claim(
        "C18",
        "The maps follow a person who moves through the clip.",
        "Centre of mass of the maps against the place of a moving object.",
        ("proxy",),
    ),
    Claim(
        "C19",
        "To keep all tokens in all layers is not necessary.",
        "C8 to C12: reproduced if all are; contradicted only if C10 and C12 both are.",
        ("proxy",),
        sources=(PLACEMENT,),
    ),
    Claim(
        "C20",
        "By its adaptivity it even gains accuracy, above all on video.",
        "Accuracy at 1/2 and 3/4 above that without TokenLearner, and above that of as"
        " many pooled, random or strided tokens; on images and on clips.",
        ("proxy",),
        sources=(PLACEMENT, T5, T6),
    ),
    Claim(
        "C21",
        "The code is public.",
        "scenic, `projects/token_learner`; not looked up.",
        ("exact",),
        caveat="No checkpoints with TokenLearner were published, nor the video module"
        " of Charades and AViD.",
    ),
)
"""The claims of the blog post that presented TokenLearner, in its order."""
