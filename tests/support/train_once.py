"""One small training that keeps checkpoints, in a process that can be killed.

    python -m support.train_once STORAGE

says `step N` ahead of each step.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from tlbench.accuracy.fit import Curves, fit
from tlbench.data import open_dataset
from tlbench.engine import (
    TrainingEngine,
    join_process_group,
    set_environment,
    training_engine,
)
from tlbench.models.vit import build_model
from tlbench.rank import Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_token_learner
from tlbench.suites.spec import Case, Trial

SEED = 7
EPOCHS, STEPS_PER_EPOCH = 3, 4
MODEL = ModelSpec(
    image_size=8,
    patch_size=4,
    embed_dim=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
    token_learner=parse_token_learner("TL2@1", 2),
)


def make_case(**changes: Any) -> Case:
    """A case whose steps hang on all that a checkpoint has to keep."""
    settings = {
        "model": MODEL,
        "mode": "fit",
        "data": "digits",
        "batch_size": 1442 // STEPS_PER_EPOCH,
        "drop_path_rate": 0.5,
        "optimizer": {"learning_rate": 0.01},
        "fit": {"epochs": EPOCHS, "ema_decay": 0.8},
    }
    return Case.model_validate(settings | changes)


def make_engine(case: Case, rank: Rank) -> TrainingEngine:
    torch.manual_seed(SEED)
    model = build_model(MODEL, 10, drop_path_rate=case.drop_path_rate)
    return training_engine(model, case, rank)


class Watched:
    """An engine that tells of each step before it takes it."""

    def __init__(self, engine: TrainingEngine, tell: Any) -> None:
        self._engine, self._tell = engine, tell
        self._taken = 0

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        self._tell(self._taken)
        self._taken += 1
        return self._engine.step(images, targets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def train(
    case: Case, rank: Rank, storage: str | None, tell: Any = lambda step: None
) -> Curves:
    """Train, or go on; `tell` is told how many steps were taken before each."""
    engine: Any = Watched(make_engine(case, rank), tell)
    trial = Trial(case, repeat=0, position=0, seed=SEED, storage=storage)
    dataset = open_dataset(case, None)
    curves, _ = fit(engine, trial, dataset, rank=rank, dtype=torch.float32)
    return curves


def main() -> None:
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", 1)
    torch.set_num_threads(1)
    set_environment(rank)
    case = make_case()
    join_process_group(case, rank)
    train(case, rank, sys.argv[1], lambda step: print("step", step, flush=True))


if __name__ == "__main__":
    main()
