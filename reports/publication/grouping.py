"""What the models of one figure share, and what its rows are called."""

import re
from collections import Counter
from collections.abc import Sequence

from tlbench.reports.publication.entries import Entry
from tlbench.reports.publication.printed import view_count
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name
from tlbench.suites.published import FUSER_FIGURE


def plain(spec: ModelSpec) -> str:
    return model_name(spec.plain)


def token_count(spec: ModelSpec) -> str:
    return f"{spec.token_learner.num_tokens} tokens" if spec.token_learner else ""


def place_words(spec: ModelSpec) -> str:
    return f"before block {spec.token_learner.place}" if spec.token_learner else ""


def size(spec: ModelSpec) -> str:
    """Width and patch, whatever the depth and the image: ViT-B/16."""
    return re.split(r"[\[@+:]", model_name(spec.plain), maxsplit=1)[0]


def image_size(spec: ModelSpec) -> str:
    return f"{spec.image_size} pixels"


def reduction(spec: ModelSpec) -> str:
    """Without TokenLearner, with it, and with it in a deepened model."""
    if spec.token_learner is None:
        return "without TokenLearner"
    is_deepened = "[" in model_name(spec.plain)
    return f"with TokenLearner{', deepened' if is_deepened else ''}"


def fusing(spec: ModelSpec) -> str | None:
    if spec.token_learner is None or spec.video is not None:
        return None
    return "fuse" if spec.token_learner.fuse else "learn"


def kind_of_reduction(spec: ModelSpec) -> str | None:
    if spec.builder is not None:
        return spec.builder.function
    if spec.grid_pool is not None:
        return "pool"
    return None if spec.token_learner is None else "learn"


def is_image(spec: ModelSpec) -> bool:
    return spec.video is None


def is_video(spec: ModelSpec) -> bool:
    return spec.video is not None


def plain_family(entry: Entry) -> str:
    if entry.row is not None and entry.row.source == FUSER_FIGURE:
        return entry.row.source.about
    return entry.plain_name


def after_plain(entry: Entry) -> str:
    """What is added to the plain model; the label where there is no model."""
    return entry.name.removeprefix(entry.plain_name) or (
        entry.name if entry.spec is None else "without"
    )


def full_name(entry: Entry) -> str:
    return entry.name


def quoted_name(entry: Entry) -> str:
    is_quoted = entry.row is not None and "(quoted)" in entry.row.label
    return f"{entry.name} (quoted)" if is_quoted else entry.name


def name_with_views(entry: Entry) -> str:
    views = view_count(entry)
    return f"{entry.name}, {views} views" if views else entry.name


def label(entry: Entry) -> str:
    return entry.name if entry.row is None else entry.row.label


def about(entry: Entry) -> str:
    return "" if entry.row is None else entry.row.source.about


def source_name(entry: Entry) -> str:
    return "" if entry.row is None else entry.row.source.name


def numbered(names: Sequence[str]) -> list[str]:
    """Names that the publication prints more than once, numbered in its order."""
    counts: Counter[str] = Counter()
    told = []
    for name in names:
        counts[name] += 1
        is_repeated = names.count(name) > 1
        told.append(f"{name} ({counts[name]})" if is_repeated else name)
    return told
