"""The figures and tables of the publication: which cases they need, what they show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tlbench.models.publication import MISPRINT_MARK
from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import Table
from tlbench.reports.drawing import Chart, NoChart
from tlbench.reports.publication import grouping, own
from tlbench.reports.publication.along import Along
from tlbench.reports.publication.belonging import (
    Belonging,
    beside,
    kinds_of,
    listed_in,
    sweep_of,
)
from tlbench.reports.publication.entries import Entry, Panel, make_entries
from tlbench.reports.publication.own import Measure, always
from tlbench.reports.publication.printed import (
    GFLOPS,
    PARAMS,
    PLACE,
    RUN_TIME,
    TOKENS,
    VIDEO_TFLOPS,
    score,
)
from tlbench.reports.publication.rows import Rows
from tlbench.reports.publication.table import figure_table
from tlbench.suites import published
from tlbench.suites.published import PublishedResult, Source, published_in

MAX_PANELS = 6
"""Quantities that a chart shows."""
READING_NOTE = (
    "Filled: own, with its 95 % interval. Hollow: published, of other data and other"
    f" machines. {MISPRINT_MARK}: a misprint, told in the table. More under Method."
)


@dataclass(frozen=True)
class PublishedFigure:
    """One figure or table of the publication, and how a report draws it."""

    name: str
    title: str
    note: str
    sources: tuple[Source, ...]
    belonging: Belonging
    layout: Along | Rows
    measures: tuple[Measure, ...]
    only_published: bool = False
    """Whether own models that none of its rows tells of are left out."""
    models: frozenset[str] | None = None
    """The rows of the sources that it takes, by their models; None: all."""

    @property
    def rows(self) -> list[PublishedResult]:
        return [
            row
            for source in self.sources
            for row in published_in(source)
            if self.models is None or row.model in self.models
        ]


@dataclass(frozen=True)
class DrawnFigure:
    """A figure with the entries and quantities that one report has for it."""

    figure: PublishedFigure
    entries: Sequence[Entry]
    panels: Sequence[Panel]

    def chart(self) -> Chart | NoChart:
        figure = self.figure
        title = f"{figure.title}: own values beside the published ones"
        shown = self.panels[:MAX_PANELS]
        picture = figure.layout.chart(figure.name, title, self.entries, shown)
        if picture is None:
            return NoChart("nothing of these models was counted, measured or published")
        return Chart(picture, READING_NOTE)

    def table(self) -> Table:
        layout = self.figure.layout
        axis = (layout.x,) if isinstance(layout, Along) else ()
        return figure_table(self.entries, (*axis, *self.panels))


def drawn_figures(cases: Sequence[CaseTrials]) -> Iterator[DrawnFigure]:
    """Those to which some of the cases belong."""
    for figure in FIGURES:
        members = figure.belonging(cases)
        if members:
            entries = make_entries(figure.rows, members)
            if figure.only_published:
                entries = [entry for entry in entries if entry.row is not None]
            panels = [panel for found in figure.measures for panel in found(entries)]
            yield DrawnFigure(figure, entries, panels)


# ---------------------------------------------------------------- the figures

_AFTER_JFT = "after JFT-300M"
_SPEEDS: tuple[Measure, ...] = (own.inference, own.training)
_ALL_VIEWS = (published.T7, published.T8)
_VIVIT = (
    published.VIVIT_MODELS,
    published.VIVIT_CROPS,
    published.VIVIT_TEMPORAL,
    published.VIVIT_EMBEDDING,
    published.VIVIT_K400,
    published.VIVIT_K600,
    published.VIVIT_MODELS_EPIC,
)
_WITHOUT_CODE = (published.T9, published.T10)
_TRADEOFF = (published.FEW_SHOT, published.T1, published.T1_SCATTER, published.T2)
_VIDEO = beside(listed_in((published.T6,), fewest=2), grouping.is_video)

FIGURES: tuple[PublishedFigure, ...] = (
    PublishedFigure(
        "place",
        "Place of TokenLearner",
        "Figure 4 of the paper: 8 and 16 tokens before the first block, and after a"
        " quarter, a half and three quarters of the blocks of ViT-B/16. Published is"
        " the top-1 of a linear probe on five images a class of ImageNet, after"
        " JFT-300M; own accuracy is that of training on the data that are named.",
        (published.PLACEMENT,),
        sweep_of("place"),
        Along(
            PLACE,
            grouping.token_count,
            grouping.plain,
            across="without TokenLearner",
            has_ticks_at_values=True,
        ),
        (
            always(score("five_shot_percent", _AFTER_JFT)),
            own.accuracy,
            always(GFLOPS),
            *_SPEEDS,
        ),
    ),
    PublishedFigure(
        "tokens",
        "Number of tokens",
        "Published are 8 and 16 tokens at half of the blocks of ViT-B/16 (figure 4).",
        (published.PLACEMENT,),
        sweep_of("num_tokens"),
        Along(
            TOKENS,
            grouping.place_words,
            grouping.plain,
            across="without TokenLearner",
            has_ticks_at_values=True,
        ),
        (
            always(score("five_shot_percent", _AFTER_JFT)),
            own.accuracy,
            always(GFLOPS),
            *_SPEEDS,
        ),
        models=frozenset({"ViT-B/16", "ViT-B/16+TL8v1@6", "ViT-B/16+TL16v1@6"}),
    ),
    PublishedFigure(
        "trade-off",
        "Accuracy and speed against compute, with and without TokenLearner",
        "The few-shot figure (224 pixels), table 1 (384) and table 2 (512). A deepened"
        " model spends on more blocks what TokenLearner saves.",
        _TRADEOFF,
        beside(listed_in(_TRADEOFF, fewest=3), grouping.is_image),
        Along(
            GFLOPS,
            grouping.size,
            grouping.image_size,
            grouping.reduction,
            is_joined=False,
        ),
        (
            always(score("five_shot_percent", _AFTER_JFT)),
            always(score("top1_percent", _AFTER_JFT)),
            own.accuracy,
            *_SPEEDS,
        ),
    ),
    PublishedFigure(
        "large",
        "Against the largest models",
        "Table 3. The accuracies are quoted: nothing here was trained on JFT. The table"
        " has ImageNet and ReaL, and no ObjectNet. Parameters are counted as they are"
        " printed: at 224 pixels, of H/14 and the L models with the classifier of"
        " JFT-300M, of G/14 without one.",
        (published.T3,),
        listed_in((published.T3,), fewest=2),
        Rows(grouping.full_name),
        (
            always(PARAMS, GFLOPS, score("top1_percent"), score("real_percent")),
            own.speedup_over("ViT-G/14@518"),
            *_SPEEDS,
            own.memory,
        ),
    ),
    PublishedFigure(
        "fuser",
        "What TokenFuser adds",
        "Table 4, and the figure of other ways back to all patches, whose code is not"
        " public. GFLOPS are those of the TokenFuser of 2021; today's, which ran here,"
        " draws its masks at a higher cost.",
        (published.T4, published.FUSER_FIGURE),
        kinds_of(grouping.fusing, "fuse"),
        Rows(grouping.after_plain, grouping.plain_family),
        (
            always(GFLOPS, score("top1_percent"), score("real_percent")),
            own.accuracy,
            *_SPEEDS,
        ),
    ),
    PublishedFigure(
        "pooling",
        "Against pooling",
        "Table 5, in ViT-L/16 at 512 pixels; its windows are those that its GFLOPS fit."
        " The models of builders (merging, random and strided tokens) are not"
        " published, and their GFLOPS are not counted in this way.",
        (published.T5,),
        kinds_of(grouping.kind_of_reduction, "learn"),
        Rows(grouping.after_plain, grouping.plain_family),
        (always(GFLOPS, score("top1_percent")), own.accuracy, *_SPEEDS),
    ),
    PublishedFigure(
        "video",
        "Video, one view",
        "Table 6: Kinetics-400, 32 frames. What is quoted there has a class token.",
        (published.T6,),
        _VIDEO,
        Rows(grouping.quoted_name),
        (
            always(GFLOPS, score("top1_percent"), score("top5_percent")),
            own.accuracy,
            *_SPEEDS,
        ),
    ),
    PublishedFigure(
        "views",
        "Video, all views",
        "Tables 7 and 8. A prediction is averaged over several crops of a video, and"
        " costs as many times as much. The own time of a video is that of its views, at"
        " the measured throughput.",
        _ALL_VIEWS,
        listed_in(_ALL_VIEWS, fewest=2),
        Rows(grouping.name_with_views, grouping.about),
        (
            always(VIDEO_TFLOPS, score("top1_percent"), score("top5_percent")),
            own.video_time,
        ),
        only_published=True,
    ),
    PublishedFigure(
        "vivit",
        "ViViT's own tables",
        "Published with a class token, which own models may have or not. Of the frames"
        " of some final results nothing is known.",
        _VIVIT,
        listed_in(_VIVIT, fewest=2),
        Rows(grouping.label, grouping.source_name),
        (
            always(
                PARAMS,
                GFLOPS,
                RUN_TIME,
                score("top1_percent"),
                score("action_percent"),
            ),
            *_SPEEDS,
        ),
        only_published=True,
    ),
    PublishedFigure(
        "clips",
        "Charades and AViD",
        "Tables 9 and 10, quoted alone: the code of the video module that is called TL"
        " here was never published.",
        _WITHOUT_CODE,
        _VIDEO,
        Rows(grouping.label, grouping.source_name),
        (always(GFLOPS, score("map_percent"), score("mean_accuracy_percent")),),
        only_published=True,
    ),
)
"""In the order in which a report has them."""
