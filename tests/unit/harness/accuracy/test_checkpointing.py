"""Checkpoints: whole or not at all, and a training that goes on as if nothing was."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from support.ranks import Ranks, on_all, started_ranks, this_rank
from support.train_once import (
    EPOCHS,
    MODEL,
    SEED,
    STEPS_PER_EPOCH,
    make_case,
    train,
)
from tlbench.accuracy import checkpointing as module
from tlbench.accuracy.checkpointing import (
    CASE_FILE,
    KEPT,
    MARKER,
    WEIGHTS,
    Checkpoints,
)
from tlbench.accuracy.fit import Curves
from tlbench.errors import TrialError
from tlbench.models.vit import build_model
from tlbench.rank import Rank
from tlbench.storage import ASIDE
from tlbench.suites.spec import Case, Trial

ALONE = Rank(0, 1, 0, 1, "127.0.0.1", 1, "cpu", 1)
TESTS = Path(__file__).parents[3]


def make_trial(seed: int = SEED, **changes: Any) -> Trial:
    return Trial(make_case(**changes), repeat=0, position=0, seed=seed)


def open_checkpoints(storage: Path | str, trial: Trial | None = None) -> Checkpoints:
    return Checkpoints(str(storage), trial or make_trial(), ALONE)


def make_state(step: int) -> dict[str, Any]:
    return {"step": step, "tensors": [torch.full((4,), float(step))], "words": {"a": 1}}


def found_step(checkpoints: Checkpoints) -> int | None:
    state = checkpoints.newest()
    return None if state is None else state["step"]


def only_folder(storage: Path) -> Path:
    (folder,) = storage.iterdir()
    return folder


# ---------------------------------------------------------------- what lies there


@pytest.mark.parametrize("kind", ["folder", "URL"])
def test_the_newest_checkpoint_is_found_as_it_was_written(
    kind: str, tmp_path: Path
) -> None:
    storage = str(tmp_path) if kind == "folder" else f"memory://{tmp_path}"
    first = open_checkpoints(storage)
    assert first.newest() is None
    for step in (6, 12):
        first.save(step, make_state(step))
    state = open_checkpoints(storage).newest()
    assert state is not None
    assert (state["step"], state["words"]) == (12, {"a": 1})
    assert torch.equal(state["tensors"][0], torch.full((4,), 12.0))


def test_a_few_of_the_last_checkpoints_are_left(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (6, 12, 18, 24):
        checkpoints.save(step, make_state(step))
    steps = sorted(path.name for path in only_folder(tmp_path).glob("step-*"))
    assert steps == ["step-000000018", "step-000000024"]
    assert len(steps) == KEPT


def test_another_case_and_another_seed_have_checkpoints_of_their_own(
    tmp_path: Path,
) -> None:
    open_checkpoints(tmp_path).save(6, make_state(6))
    assert open_checkpoints(tmp_path, make_trial(seed=SEED + 1)).newest() is None
    assert open_checkpoints(tmp_path, make_trial(batch_size=10)).newest() is None
    assert found_step(open_checkpoints(tmp_path)) == 6


def test_the_case_is_written_for_people(tmp_path: Path) -> None:
    trial = make_trial()
    open_checkpoints(tmp_path, trial)
    folder = only_folder(tmp_path)
    assert folder.name == f"{trial.case.identity}-{SEED}"
    assert json.loads((folder / CASE_FILE).read_text()) == trial.case.canonical()


def test_what_was_not_written_to_its_end_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (6, 12):
        checkpoints.save(step, make_state(step))
    (only_folder(tmp_path) / "step-000000012" / MARKER).unlink()
    resumed = open_checkpoints(tmp_path)
    assert found_step(resumed) == 6
    assert resumed.damages == []


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "rank-0.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "rank-0.pt").write_bytes(content)


def cut_off(folder: Path) -> None:
    content = (folder / "rank-0.pt").read_bytes()
    (folder / "rank-0.pt").write_bytes(content[: len(content) // 2])


def lose_the_state(folder: Path) -> None:
    (folder / "rank-0.pt").unlink()


def garble_the_marker(folder: Path) -> None:
    (folder / MARKER).write_text("{")


def write_another_version(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(marker | {"version": 2}))


def forget_a_rank(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(marker | {"sha256": []}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_a_byte, "rank-0.pt is not as it was written"),
        (cut_off, "rank-0.pt is not as it was written"),
        (lose_the_state, "whole.json does not describe the files beside it"),
        (garble_the_marker, "whole.json does not describe the files beside it"),
        (write_another_version, "whole.json does not describe the files beside it"),
        (forget_a_rank, "whole.json does not describe the files beside it"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    damage: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (6, 12):
        checkpoints.save(step, make_state(step))
    damage(only_folder(tmp_path) / "step-000000012")
    resumed = open_checkpoints(tmp_path)
    assert found_step(resumed) == 6
    (sentence,) = resumed.damages
    assert sentence.endswith(f"step-000000012/{told}; it was not used")


def test_a_training_that_starts_anew_keeps_what_it_writes(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (12, 18):
        checkpoints.save(step, make_state(step))
        cut_off(only_folder(tmp_path) / f"step-{step:09}")
    anew = open_checkpoints(tmp_path)
    assert found_step(anew) is None
    for step in (6, 12, 18):
        anew.save(step, make_state(step))
        assert found_step(open_checkpoints(tmp_path)) == step
    steps = sorted(path.name for path in only_folder(tmp_path).glob("step-*"))
    assert steps == ["step-000000012", "step-000000018"]


def test_a_checkpoint_that_only_another_rank_cannot_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (6, 12):
        checkpoints.save(step, make_state(step))
    # Of both ranks: the newest step, whether one cannot read it, and the same again.
    largest = iter([-12, 1, -6, 0])
    monkeypatch.setattr(module, "largest_of_ranks", lambda _: next(largest))
    assert found_step(checkpoints) == 6
    (sentence,) = checkpoints.damages
    told = "step-000000012 cannot be read by every rank; it was not used"
    assert sentence.endswith(told)


class Malice:
    """What runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._target}",)


@pytest.mark.parametrize("form", ["pickle", "torch", "text", "nothing"])
def test_a_foreign_file_is_told_and_nothing_in_it_is_run(
    form: str, tmp_path: Path
) -> None:
    storage, target = tmp_path / "storage", tmp_path / "was-run"
    checkpoints = open_checkpoints(storage)
    checkpoints.save(6, make_state(6))
    checkpoints.save(12, make_state(12))
    foreign = only_folder(storage) / "step-000000012" / "rank-0.pt"
    if form == "torch":
        torch.save(Malice(target), foreign)
    elif form == "pickle":
        foreign.write_bytes(pickle.dumps(Malice(target)))
    else:
        foreign.write_text("weights" if form == "text" else "")
    # Whoever can put it there can put its digest there as well.
    with foreign.open("rb") as file:
        digest = module._digest(file)
    marker = foreign.parent / MARKER
    marker.write_text(json.dumps({"version": 1, "sha256": [digest]}))
    resumed = open_checkpoints(storage)
    assert found_step(resumed) == 6
    assert "rank-0.pt is no checkpoint of tlbench" in resumed.damages[0]
    assert not target.exists()


def test_storage_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrialError, match=r"cannot be kept in .*taken"):
        open_checkpoints(tmp_path / "taken" / "storage")


def test_final_weights_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    (only_folder(tmp_path) / (WEIGHTS + ASIDE)).mkdir()  # in the way of the file
    with pytest.raises(TrialError, match=r"checkpoints cannot be kept in .*directory"):
        checkpoints.save_weights({"weight": torch.zeros(1)}, 6)


def test_storage_that_machines_do_not_share_is_told(tmp_path: Path) -> None:
    rank = Rank(0, 2, 0, 1, "127.0.0.1", 1, "cpu", 1)
    checkpoints = Checkpoints(str(tmp_path), make_trial(), rank)
    with pytest.raises(TrialError, match="does not have what rank 1 wrote"):
        checkpoints.save(6, make_state(6))


# ---------------------------------------------------------------- training that goes on


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_at(last: int) -> Callable[[int], None]:
    def tell(step: int) -> None:
        if step == last:
            raise KilledError

    return tell


def assert_same_curves(curves: Curves, whole: Curves) -> None:
    assert curves.loss == whole.loss
    assert curves.learning_rate == whole.learning_rate
    assert curves.eval_epoch == whole.eval_epoch
    assert curves.eval_top1_percent == whole.eval_top1_percent
    assert curves.eval_time_s == sorted(curves.eval_time_s)


def weights_of(storage: Path) -> dict[str, Tensor]:
    return load_file(only_folder(storage) / WEIGHTS)


def assert_equal_weights(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    assert [name for name in some if not torch.equal(some[name], others[name])] == []


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def torch_case() -> Case:
    """Without DeepSpeed, which `fit` has no setting for: it runs in this process."""
    return make_case().model_copy(update={"stack": "torch"})


@pytest.fixture(scope="module")
def whole(
    torch_case: Case, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Curves, Path]:
    storage = tmp_path_factory.mktemp("whole")
    return train(torch_case, ALONE, str(storage)), storage


@pytest.mark.parametrize("steps", [2, 2 * STEPS_PER_EPOCH + 1])
def test_a_training_that_was_ended_goes_on_as_if_it_was_not(
    steps: int, torch_case: Case, whole: tuple[Curves, Path], tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        train(torch_case, ALONE, str(tmp_path), kill_at(steps))
    torch.manual_seed(99)  # of a process that knows nothing of the first one
    curves = train(torch_case, ALONE, str(tmp_path))
    assert_same_curves(curves, whole[0])
    assert_equal_weights(weights_of(tmp_path), weights_of(whole[1]))
    resumed_at = steps - steps % STEPS_PER_EPOCH
    assert curves.resumed_at_step == ([resumed_at] if resumed_at else [])


def test_a_training_that_is_complete_takes_no_further_step(
    torch_case: Case, whole: tuple[Curves, Path]
) -> None:
    curves = train(torch_case, ALONE, str(whole[1]), kill_at(0))
    assert_same_curves(curves, whole[0])
    assert curves.train_time_s == whole[0].train_time_s
    assert curves.resumed_at_step == []
    assert curves.notes["training"].startswith("was complete; its times are those of")


def test_a_training_from_the_checkpoint_before_a_damaged_one_tells_so(
    torch_case: Case, whole: tuple[Curves, Path], tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        train(torch_case, ALONE, str(tmp_path), kill_at(2 * STEPS_PER_EPOCH))
    flip_a_byte(max(only_folder(tmp_path).glob("step-*")))
    curves = train(torch_case, ALONE, str(tmp_path))
    assert_same_curves(curves, whole[0])
    assert curves.resumed_at_step == [STEPS_PER_EPOCH]
    assert curves.notes["training"] == f"went on after step {STEPS_PER_EPOCH}"
    assert "is not as it was written; it was not used" in curves.notes["checkpoints"]


def test_storage_changes_nothing(torch_case: Case, whole: tuple[Curves, Path]) -> None:
    assert_same_curves(train(torch_case, ALONE, None), whole[0])


def test_the_final_weights_have_the_names_of_the_model(
    whole: tuple[Curves, Path],
) -> None:
    model = build_model(MODEL, 10)
    weights = weights_of(whole[1])
    assert model.load_state_dict(weights).missing_keys == []
    assert {"patch_embed.proj.weight", "pos_embed", "head.weight"} <= weights.keys()


def test_a_url_of_fsspec_will_do(torch_case: Case, whole: tuple[Curves, Path]) -> None:
    storage = "memory://trainings/one"
    with pytest.raises(KilledError):
        train(torch_case, ALONE, storage, kill_at(STEPS_PER_EPOCH + 1))
    assert_same_curves(train(torch_case, ALONE, storage), whole[0])
    (weights,) = fsspec.filesystem("memory").glob(f"trainings/one/*/{WEIGHTS}")
    assert weights


# ---------------------------------------------------------------- under DeepSpeed


@pytest.fixture(scope="module", params=[1, 2], ids=["one_rank", "two_ranks"])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    with started_ranks(request.param) as started:
        yield started


def _train_here(case: Case, storage: str, last: int | None) -> Curves | None:
    try:
        tell = kill_at(last) if last is not None else lambda step: None
        return train(case, this_rank(), storage, tell)
    except KilledError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_ranks_go_on_together_under_every_stage(
    ranks: Ranks, zero_stage: int, tmp_path: Path
) -> None:
    parallelism = {"world_size": len(ranks), "zero_stage": zero_stage}
    case = make_case(parallelism=parallelism)
    in_one, in_parts = tmp_path / "in-one", tmp_path / "in-parts"
    whole = on_all(ranks, _train_here, case, str(in_one), None)
    assert len(weights_of(in_one)) == len(build_model(MODEL, 10).state_dict())
    generator = random.Random(zero_stage)
    for _ in range(2):
        last = generator.randrange(1, EPOCHS * STEPS_PER_EPOCH - STEPS_PER_EPOCH)
        on_all(ranks, _train_here, case, str(in_parts), last)
    resumed = on_all(ranks, _train_here, case, str(in_parts), None)
    for curves, expected in zip(resumed, whole, strict=True):
        assert curves.loss == pytest.approx(expected.loss, abs=1e-6)
        assert curves.learning_rate == expected.learning_rate
        assert curves.eval_top1_percent == expected.eval_top1_percent
    weights, others = weights_of(in_parts), weights_of(in_one)
    if len(ranks) == 1:
        assert_equal_weights(weights, others)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_checkpoint_that_one_rank_cannot_read_is_used_by_none(
    ranks: Ranks, tmp_path: Path
) -> None:
    case = make_case(parallelism={"world_size": len(ranks), "zero_stage": 2})
    on_all(ranks, _train_here, case, str(tmp_path), 2 * STEPS_PER_EPOCH + 1)
    last = max(only_folder(tmp_path).glob("step-*"))
    (last / f"rank-{len(ranks) - 1}.pt").write_text("")
    resumed = on_all(ranks, _train_here, case, str(tmp_path), None)
    assert [c.resumed_at_step for c in resumed] == [[STEPS_PER_EPOCH]] * len(ranks)
    assert all("it was not used" in c.notes["checkpoints"] for c in resumed)


def _start(storage: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.train_once", str(storage)],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _run_until(process: subprocess.Popen[str], steps: int) -> None:
    """Kill the process once it begins its step of this number."""
    assert process.stdout is not None
    for line in process.stdout:
        if line == f"step {steps}\n":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)


@pytest.mark.slow
def test_a_process_that_is_killed_at_random_five_times_ends_at_the_same_weights(
    tmp_path: Path,
) -> None:
    in_one, in_parts = tmp_path / "in-one", tmp_path / "in-parts"
    with _start(in_one) as process:
        process.communicate(timeout=60)
    generator = random.Random(0)
    for _ in range(5):
        with _start(in_parts) as process:
            _run_until(process, generator.randrange(2 * STEPS_PER_EPOCH))
        assert process.returncode in (-signal.SIGKILL, 0)
    with _start(in_parts) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert_equal_weights(weights_of(in_parts), weights_of(in_one))
