"""The order in which the report tells its sections, and how its list groups them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tlbench.reports.sections import Section


class Link(NamedTuple):
    """One line of the list of sections."""

    name: str
    title: str


GROUPS = {
    "Question and answer": ("asked", "answer", "against"),
    "Accuracy and compute": (
        *("accuracy", "accuracy-throughput", "place", "trade-off", "tokens", "fuser"),
        *("pooling", "large", "video", "views", "vivit", "clips"),
    ),
    "Speed": ("throughput", "speed-up", "stages"),
    "Memory": ("memory", "frontier"),
    "Conditions": ("break-even", "scaling", "stacks", "input"),
    "Training": ("training", "attention"),
    "Publication": ("claims", "cost"),
    "Evidence": ("history", "machine", "trust", "cases", "failures"),
    "Background": ("method", "provenance"),
}
"""The names of all sections there can be; a report has those that it can fill."""
PLACES = {
    name: place
    for place, name in enumerate(name for names in GROUPS.values() for name in names)
}


def in_order(sections: Iterable[Section]) -> list[Section]:
    """As `GROUPS` has them."""
    return sorted(sections, key=lambda section: PLACES[section.name])


def contents(links: Sequence[Link]) -> dict[str, list[Link]]:
    """The list of sections: the groups that have any, with theirs."""
    named = {link.name: link for link in links}
    grouped = {
        title: [named[name] for name in names if name in named]
        for title, names in GROUPS.items()
    }
    return {title: members for title, members in grouped.items() if members}
