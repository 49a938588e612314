"""README and docs say what the code does: commands, settings, models, examples."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import typer.main
import yaml
from sqlalchemy import text

from tlbench.cli import app
from tlbench.db.models import Base
from tlbench.db.store import ResultStore
from tlbench.errors import SuiteError
from tlbench.models import cost
from tlbench.reports.quantities import QUANTITIES
from tlbench.result import STATUSES, Metric, Series, TrialResult
from tlbench.suites.loader import DEFAULT_REPEATS, parse_suite
from tlbench.suites.names import VARIANTS, expand_braces, parse_model
from tlbench.suites.spec import (
    MODES,
    Case,
    Fit,
    ModelSpec,
    Optimizer,
    Parallelism,
    Spec,
    Suite,
    Timing,
    TokenLearnerSpec,
    Trial,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
SET_UP = ["pip install . && tlbench run smoke --report smoke.html"]
TESTS = ["pip install tox && tox"]

SETTINGS: dict[str, type[Spec]] = {
    "Suite": Suite,
    "Settings of a case": Case,
    "`parallelism`": Parallelism,
    "`optimizer`": Optimizer,
    "`timing`": Timing,
    "`fit`": Fit,
    "Keys of a model": ModelSpec,
    "`token_learner`": TokenLearnerSpec,
}
"""Which section of docs/suites.md documents which record."""
WRITTEN_AS_MODELS = {"model", "cases"}
"""Fields of the schema that the loader makes, from `models` and the settings."""

BASE_OF_FRAGMENTS = {"models": "ViT-B/16", "mode": "infer"}
"""What completes a fragment where it does not say it itself."""


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    language: str
    mark: str
    """What follows the language: `fragment` or `refused`."""
    content: str

    @property
    def title(self) -> str:
        return f"{self.page.name}: {self.content[:30]!r}"


def _blocks(language: str, mark: str = "") -> list[Block]:
    return [
        block
        for page in PAGES
        for block in _blocks_of(page)
        if (block.language, block.mark) == (language, mark)
    ]


def _blocks_of(page: Path) -> Iterator[Block]:
    fences = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    for language, mark, content in fences:
        yield Block(page, language, mark, content)


def _section(page: str, heading: str) -> str:
    """What stands between a heading and the next of any level."""
    parts = re.split(r"^#+ (.*)$", (DOCS / page).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def _rows(markdown: str) -> list[list[str]]:
    """The cells of each row of the tables, headings left out."""
    lines = re.findall(r"^\| .* \|$", re.sub(r"^\|.*\n\|-.*$", "", markdown, flags=re.M), re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _code(markdown: str) -> list[str]:
    """What stands in backticks, fenced blocks left out."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def _commands() -> dict[str, click.Command]:
    """Every command that does something, by what one types for it."""
    found: dict[str, click.Command] = {}
    pending = [("tlbench", typer.main.get_command(app))]
    for name, command in pending:
        children = getattr(command, "commands", {})
        pending += [(f"{name} {child}", children[child]) for child in children]
        if not children:
            found[name] = command
    return found
