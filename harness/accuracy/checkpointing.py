"""Checkpoints of a training, from which the same trial goes on after it was ended.

Those of a case and a seed lie in a folder of their own:

    <storage>/<identity of the case>-<seed>/
        case.json               the case, for people
        step-000000312/
            rank-0.pt ...       what each rank goes on from
            whole.json          written last; without it there is no checkpoint
        model.safetensors       the weights at the end

Only tensors, lists, dicts, texts and numbers are read from files, never code.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from tlbench.engine import largest_of_ranks, sum_over_ranks
from tlbench.errors import TrialError
from tlbench.rank import Rank
from tlbench.storage import Folder
from tlbench.suites.schema import Spec
from tlbench.suites.spec import Case, Trial

KEPT = 2
"""Checkpoints that are left: should the last be damaged, there is one before it."""
CASE_FILE = "case.json"
MARKER = "whole.json"
WEIGHTS = "model.safetensors"
DIGEST_BYTES = 32


class Marker(Spec):
    """What says that a checkpoint is whole."""

    version: Literal[1] = 1
    """Of the form of the files."""
    sha256: tuple[str, ...]
    """Of the file of each rank."""


class Checkpoints:
    """The checkpoints of one trial, which its ranks read and write together."""

    def __init__(self, storage: str, trial: Trial, rank: Rank) -> None:
        self._name = f"{trial.case.identity}-{trial.seed}"
        self._folder = Folder(storage, self._name)
        self._rank = rank
        self.damages: list[str] = []
        """What is wrong with checkpoints that could not be used, a sentence each."""
        if rank.rank == 0:
            self._describe(trial.case)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep what this rank goes on from; every rank must do so."""
        with self._keeping():
            digests = self._exchange(self._write_state(step, state))
            if self._rank.rank == 0:
                self._mark_as_whole(step, digests)
                self._remove_before(step)

    def newest(self) -> dict[str, Any] | None:
        """This rank's state in the newest checkpoint that is whole on every rank."""
        steps = self._steps()
        while True:
            # The newest that no rank is without; one may see less of the storage.
            step = -largest_of_ranks(-max(steps, default=-1))
            if step < 0:
                return None
            state = self._read_state(step)
            if not largest_of_ranks(int(state is None)):
                return state
            if state is not None:
                self._tell(_step_folder(step), "cannot be read by every rank")
            steps = [earlier for earlier in steps if earlier < step]

    def save_weights(self, weights: dict[str, Tensor], step: int) -> None:
        """Keep the final weights, which rank 0 has."""
        if self._rank.rank != 0:
            return
        from safetensors.torch import save

        content = save(weights, {"trial": self._name, "step": str(step)})
        with self._keeping(), self._folder.writing(WEIGHTS) as file:
            file.write(content)

    # ---------------------------------------------------------------- writing

    def _describe(self, case: Case) -> None:
        with self._keeping(), self._folder.writing(CASE_FILE) as file:
            file.write(json.dumps(case.canonical(), indent=1).encode())

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Inside, a storage that takes no more files ends the trial."""
        try:
            yield
        except OSError as error:
            raise TrialError(
                f"checkpoints cannot be kept in {self._folder.url}: {error}"
            ) from error

    def _write_state(self, step: int, state: dict[str, Any]) -> bytes:
        """Write this rank's file; its SHA-256."""
        with self._folder.writing(_state_file(step, self._rank.rank)) as file:
            digesting = _Digesting(file)
            torch.save(state, digesting)  # type: ignore[arg-type]  # it only writes
        return digesting.digest()

    def _exchange(self, digest: bytes) -> tuple[str, ...]:
        """The SHA-256 of the file of every rank, once all are written."""
        digests = torch.zeros(
            self._rank.world_size,
            DIGEST_BYTES,
            dtype=torch.int64,
            device=self._rank.device,
        )
        digests[self._rank.rank] = torch.tensor(list(digest))
        return tuple(bytes(row).hex() for row in sum_over_ranks(digests).tolist())

    def _mark_as_whole(self, step: int, digests: tuple[str, ...]) -> None:
        for rank in range(len(digests)):
            if not self._folder.has(_state_file(step, rank)):
                raise TrialError(
                    f"{self._folder.url} does not have what rank {rank} wrote; a"
                    " folder or URL that all machines share would be right"
                )
        with self._folder.writing(f"{_step_folder(step)}/{MARKER}") as file:
            file.write(Marker(sha256=digests).model_dump_json().encode())

    def _remove_before(self, last: int) -> None:
        # Later ones could not be used; the training comes by and writes them anew.
        steps = [step for step in self._steps() if step <= last]
        for step in steps[:-KEPT]:
            self._folder.remove(_step_folder(step))

    # ---------------------------------------------------------------- reading

    def _steps(self) -> list[int]:
        """The steps of what looks like a checkpoint, the first ones first."""
        names = self._folder.names()
        matches = (re.fullmatch(r"step-(\d+)", name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def _read_state(self, step: int) -> dict[str, Any] | None:
        """This rank's state; None: there is none, or it is not as it was written."""
        marker = f"{_step_folder(step)}/{MARKER}"
        if not self._folder.has(marker):
            return None  # its trial was ended while it wrote
        name = _state_file(step, self._rank.rank)
        try:
            wanted = Marker.model_validate_json(self._folder.read(marker)).sha256
            with self._folder.reading(name) as file:
                if _digest(file) != wanted[self._rank.rank]:
                    self._tell(name, "is not as it was written")
                    return None
                file.seek(0)
                state: dict[str, Any] = torch.load(
                    file, map_location="cpu", weights_only=True
                )
        except (OSError, IndexError, ValidationError):
            self._tell(marker, "does not describe the files beside it")
        except (pickle.UnpicklingError, RuntimeError, EOFError):
            self._tell(name, "is no checkpoint of tlbench")
        else:
            return state
        return None

    def _tell(self, name: str, what: str) -> None:
        self.damages.append(f"{self._folder.url}/{name} {what}; it was not used")


class _Digesting:
    """A file that is written to, and the SHA-256 of what was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> bytes:
        return self._hash.digest()


def _digest(file: IO[bytes]) -> str:
    # What fsspec opens has `readinto`, which IO does not tell of.
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _step_folder(step: int) -> str:
    return f"step-{step:09}"


def _state_file(step: int, rank: int) -> str:
    return f"{_step_folder(step)}/rank-{rank}.pt"
