"""What is read from a file of another tool, before it is stored."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from tlbench.db.query import FOREIGN
from tlbench.machine import Machine
from tlbench.result import Metric, Series, Status
from tlbench.suites.spec import Precision

Tool = Literal["timm", "optimum-benchmark"]
TOOLS: tuple[Tool, ...] = get_args(Tool)


class UnreadableError(ValueError):
    """A file is not what its tool writes; the message says where."""


@dataclass(frozen=True)
class ForeignCase:
    """What a tool told of the settings; None: nothing."""

    tool: Tool
    model: str
    mode: str
    """`unknown` where the tool did not say even that."""
    image_size: int | None = None
    batch_size: int | None = None
    precision: Precision | None = None
    device: str | None = None
    world_size: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Settings that tlbench has no word for, in the tool's own words."""

    @property
    def canonical(self) -> dict[str, Any]:
        """JSON that no case of tlbench can have; its settings have our names."""
        return {
            FOREIGN: {"tool": self.tool, "model": self.model, **self.more},
            "mode": self.mode,
            "model": {"image_size": self.image_size},
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
            "parallelism": {"world_size": self.world_size},
        }

    @property
    def columns(self) -> dict[str, Any]:
        """The row of the case."""
        text = json.dumps(self.canonical, sort_keys=True)
        return {
            "identity": hashlib.sha256(text.encode()).hexdigest(),
            "canonical": self.canonical,
            "mode": self.mode,
            "data": None,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
            "world_size": self.world_size,
            "zero_stage": None,
        }


@dataclass(frozen=True)
class ForeignTrial:
    """One result of another tool."""

    case: ForeignCase
    status: Status = "ok"
    reason: str | None = None
    metrics: tuple[Metric, ...] = ()
    series: tuple[Series, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """What the tool told, and no metric or setting has a place for."""
    seed: int | None = None
    machine: Machine | None = None


@dataclass(frozen=True)
class ForeignRun:
    """One file of another tool."""

    tool: Tool
    source: str
    """The name of the file."""
    content: Any
    """All that it says, as JSON."""
    trials: tuple[ForeignTrial, ...]
    measured_at: datetime
    """When the file was last written: no tool tells when it measured."""
    version: str = ""
    """Of the tool; empty: it did not say."""

    @property
    def uid(self) -> str:
        """The same for the same content, whatever the file is called."""
        text = json.dumps([self.tool, self.content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]
