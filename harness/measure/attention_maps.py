"""Where TokenLearner looks: its maps over held-out samples, kept and told in numbers.

The numbers are of the shape of a map, its weights divided by their sum: how many tokens
a v1 map lets through says nothing of where it looks.

B samples in a batch, C channels (3), F frames, I image size, M samples, T time steps (1
for images), S maps, h and w the sides of their grid, N = h * w positions, P pixels
along a side of a picture.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn, unflatten

from tlbench.data import Dataset, Held, SplitName, hold
from tlbench.data.epochs import view_batches
from tlbench.data.transforms import colours
from tlbench.measure.map_file import MAPS_NAME, MEDIA_TYPE, SavedMaps
from tlbench.measure.precision import DTYPES
from tlbench.models.tokenlearner import MapPooling
from tlbench.rank import Rank
from tlbench.result import Artifact, Metric
from tlbench.suites.spec import Case

MEASURED_SAMPLES = 48
"""Held-out samples that the numbers are of."""
KEPT_SAMPLES = 6
"""Of these, spread over them, are kept to be looked at."""
IMAGE_PIXELS = 224
FRAME_PIXELS = 96
"""Most pixels along a side of a picture; a clip has many."""
MAX_BYTES = 4 * 2**20
"""Of the file; a report reads several."""

STILL = 1e-6
"""Parts of the side; what moves less far has rounded."""

NO_GRID = "the tokens that TokenLearner sees stand in no square grid"
NO_ROOM = f"not even the maps of one sample fit into {MAX_BYTES >> 20} MiB"
NO_OBJECT = "it is known of moving-digits alone where an object is"

SHAPE_METRICS = ("map_entropy", "map_variation")
PATH_METRICS = (
    *("map_distance_best", "map_distance_mean", "map_distance_middle"),
    *("map_correlation_best", "map_gain_best"),
    *("map_correlation_mean", "map_gain_mean"),
)
"""Those that need to know where an object is."""


@runtime_checkable
class Followed(Protocol):
    """A data set of clips of which it is known where the object is."""

    def positions(self, name: SplitName, index: int, /) -> Tensor:
        """Its centre in each frame, [F, 2]: y and x in parts of the side."""
        ...


# ---------------------------------------------------------------- capture


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of each TokenLearner of a model, that of the first block first.

    Args:
        model: In the mode, and on the device, in which it is to be looked at.
        images: [B, C, I, I], or clips [B, C, F, I, I].

    Returns:
        [B, T, S, h, w] each, float32 on the host; none of a model without TokenLearner.

    Raises:
        ValueError: The tokens that one of them sees stand in no square grid.
    """
    return _look(model, images)[1]


def _look(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the model says of the samples, [B, K], and the maps it has drawn."""
    # What is compiled would be compiled anew, with the hooks.
    with _recorded(model) as drawn, torch.compiler.set_stance("force_eager"):
        outputs: Tensor = model(images)
    return outputs.float().cpu(), [_in_grids(maps, len(images)) for maps in drawn]


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the maps, [B * T, S, N] each, that are drawn inside, in their order."""
    drawn: list[Tensor] = []

    def record(learner: MapPooling, inputs: tuple[Tensor], _: Tensor) -> None:
        drawn.append(learner.attention(*inputs).float().cpu())

    hooks = [learner.register_forward_hook(record) for learner in _learners(model)]
    try:
        yield drawn
    finally:
        for hook in hooks:
            hook.remove()


def _learners(model: nn.Module) -> list[MapPooling]:
    return [module for module in model.modules() if isinstance(module, MapPooling)]


def _in_grids(maps: Tensor, batch_size: int) -> Tensor:
    """[B * T, S, N] -> [B, T, S, h, w]."""
    positions = maps.shape[-1]
    side = math.isqrt(positions)
    if side * side != positions or len(maps) % batch_size:
        raise ValueError(
            f"{NO_GRID}: {positions} in {len(maps) / batch_size:g} steps of time"
        )
    steps = unflatten(maps, 0, (batch_size, -1))
    return unflatten(steps, 3, (side, side))


# ---------------------------------------------------------------- a trial


@dataclass(frozen=True)
class _Looked:
    """What was seen of the measured samples."""

    indices: list[int]
    """Their places in the split."""
    maps: Tensor
    """[M, T, S, h, w] of the first TokenLearner."""
    labels: list[str]
    answers: list[str]
    pictures: list[Tensor]
    """[T, P, P, 3] each."""


def map_findings(
    model: nn.Module, dataset: Dataset, case: Case, rank: Rank
) -> tuple[list[Metric], list[Artifact]]:
    """Numbers of the maps over held-out samples, and a file of a few of them.

    Of the first TokenLearner, where there are several: it sees what the only one at its
    place would see. Every rank must ask, for sharded parameters (ZeRO 3) are gathered
    by all of them; only rank 0 is told anything.

    Args:
        model: Is left in the mode in which it came; without TokenLearner there is
            nothing to find.
        dataset: Its split for evaluation is looked at.
        case: What of a sample the model sees.
        rank: All see the same samples.
    """
    if not _learners(model):
        return [], []
    was_training = model.training
    try:
        looked = _look_at_samples(model.eval(), dataset, case, rank)
    except ValueError as error:  # a builder may have left anything of the grid
        metrics = _unknown((*SHAPE_METRICS, *PATH_METRICS), str(error))
        return (metrics, []) if rank.rank == 0 else ([], [])
    finally:
        model.train(was_training)
    if rank.rank != 0 or looked is None:
        return [], []
    found = _positions(dataset, case, looked)
    positions = None if isinstance(found, str) else found
    metrics = [
        *_shape_metrics(looked.maps),
        *_path_metrics(looked.maps, found, _covered(case)),
    ]
    return _keep(_saved(looked, positions, dataset, case), metrics)


@torch.no_grad()
def _look_at_samples(
    model: nn.Module, dataset: Dataset, case: Case, rank: Rank
) -> _Looked | None:
    """None: not one of the samples can be read."""
    chosen = chosen_samples(hold(dataset, "eval"))
    batch_size = max(case.micro_batch_size // case.views, 1)
    alone = replace(rank, rank=0, world_size=1)
    batches = view_batches(
        dataset, "eval", case, alone, batch_size=batch_size, indices=chosen
    )
    looked = _Looked([], torch.empty(0), [], [], [])
    maps = []
    for number, batch in enumerate(batches):
        images = batch.images[_central_view(case) :: batch.views]
        outputs, (drawn, *_) = _look(
            model, images.to(rank.device, DTYPES[case.precision])
        )
        for place in batch.counted.nonzero().flatten().tolist():
            maps.append(drawn[place])
            looked.indices.append(chosen[number * batch_size + place])
            looked.labels.append(_in_words(batch.labels[place]))
            looked.answers.append(str(int(outputs[place].argmax())))
            looked.pictures.append(_pictures(images[place], case))
    return replace(looked, maps=torch.stack(maps)) if maps else None


def chosen_samples(held: Held) -> list[int]:
    """The places of the samples that are measured, spread over the classes.

    Those of files are spread over the split: their labels are not known before they are
    read, and folders have them class by class.
    """
    if held.split is None:
        return _evenly(range(len(held.stored)), MEASURED_SAMPLES)
    by_class = held.split.labels.argsort(stable=True)
    return _evenly(by_class.tolist(), MEASURED_SAMPLES)


def _evenly(places: Sequence[int], count: int) -> list[int]:
    """So many of them, or all, with even gaps between."""
    count = min(count, len(places))
    return [places[number * len(places) // count] for number in range(count)]


def _central_view(case: Case) -> int:
    """Which view of each sample is looked at: the middle of the middle clip."""
    clips, crops = case.views // case.view.spatial_crops, case.view.spatial_crops
    return clips // 2 * crops + crops // 2


def _in_words(label: Tensor) -> str:
    """One class, or the classes of a row of a one for each."""
    if label.ndim == 0:
        return str(int(label))
    return ", ".join(map(str, label.nonzero().flatten().tolist())) or "none"


def _pictures(sample: Tensor, case: Case) -> Tensor:
    """[C, I, I] or [C, F, I, I] -> [T, P, P, 3] uint8: a frame of each time step."""
    video = case.model.video
    if video is None:
        frames, limit = sample[:, None], IMAGE_PIXELS
    else:
        steps, length = case.model.time_steps, video.tubelet_size
        middles = torch.arange(steps) * length + length // 2
        frames, limit = sample[:, middles], FRAME_PIXELS
    mean, deviation = map(torch.tensor, colours(case.view))
    shades = frames * deviation.view(-1, 1, 1, 1) + mean.view(-1, 1, 1, 1)
    shades = shades.transpose(0, 1)  # [T, C, I, I]
    if shades.shape[-1] > limit:
        shades = nn.functional.interpolate(
            shades, size=(limit, limit), mode="bilinear", antialias=True
        )
    return (255 * shades).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


# ---------------------------------------------------------------- numbers


def _shape_metrics(maps: Tensor) -> Iterator[Metric]:
    shares = _shares(maps)
    samples, positions = len(shares), shares.shape[-1]
    if positions > 1:
        yield Metric("map_entropy", entropy(shares))
    else:
        yield Metric("map_entropy", None, "a map has one position only")
    if samples > 1:
        yield Metric("map_variation", variation(shares))
    else:
        yield Metric("map_variation", None, "only one sample could be read")


def _shares(maps: Tensor) -> Tensor:
    """[M, T, S, h, w] -> [M, T, S, N]: of the whole weight of a map."""
    weights = maps.flatten(-2)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)


def entropy(shares: Tensor) -> float:
    """How far maps [M, T, S, N] spread: the mean entropy over log N, from 0 to 1.

    1: over all positions alike; 0: on a single one.
    """
    positions = shares.shape[-1]
    spread = torch.special.entr(shares).sum(-1) / math.log(positions)
    mean: float = spread.mean().item()
    return mean


def variation(shares: Tensor) -> float:
    """How much a map [M, T, S, N] differs from input to input, from 0 to 1.

    The share of its weight that lies elsewhere for another input (the total variation
    distance of the two), averaged over all pairs of inputs, all time steps and maps.
    0: the same for all; 1: no two inputs have a position in common.
    """
    samples = len(shares)
    of_map = shares.flatten(1, 2).transpose(0, 1).contiguous()  # [T * S, M, N]
    apart = torch.cdist(of_map, of_map, p=1).sum((1, 2)) / 2
    mean: float = (apart.mean() / (samples * (samples - 1))).item()
    return mean


def centres(maps: Tensor, covered: float = 1.0) -> Tensor:
    """Centres of mass of maps [..., h, w]: [..., 2], y and x in parts of the side.

    Args:
        maps: Their weights.
        covered: Share of the side that the grid covers, from the top left.
    """
    height, width = maps.shape[-2:]
    shares = maps / maps.sum((-2, -1), keepdim=True).clamp_min(1e-12)
    rows = (torch.arange(height) + 0.5) / height * covered
    columns = (torch.arange(width) + 0.5) / width * covered
    return torch.stack(
        [(shares.sum(-1) * rows).sum(-1), (shares.sum(-2) * columns).sum(-1)], dim=-1
    )


def _path_metrics(
    maps: Tensor, positions: Tensor | str, covered: float
) -> list[Metric]:
    """How the centres of maps [M, T, S, h, w] follow the object at [M, T, 2].

    Or why it is not known where that is. The best map is the one, of all clips, whose
    centre is the nearest on average. The centre of the mean map is the mean of the
    centres.
    """
    if isinstance(positions, str):
        return _unknown(PATH_METRICS, positions)
    of_maps = centres(maps, covered)  # [M, T, S, 2]
    distances = _distances(of_maps, positions[:, :, None]).mean((0, 1))  # [S]
    best = of_maps[:, :, distances.argmin()]
    mean = of_maps.mean(2)
    middle = torch.full((2,), 0.5)
    return [
        Metric("map_distance_best", distances.min().item()),
        Metric("map_distance_mean", _distances(mean, positions).mean().item()),
        Metric("map_distance_middle", _distances(middle, positions).mean().item()),
        *_along("best", best, positions),
        *_along("mean", mean, positions),
    ]


def _distances(points: Tensor, others: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(points - others, dim=-1)
    return distances


def _along(which: str, path: Tensor, positions: Tensor) -> list[Metric]:
    """Correlation (-1 to 1) and gain of a map's path [M, T, 2] over time.

    Of what path and object are away from their own means over the clip, both directions
    and all clips together. The gain is the slope: 1 goes as far as the object, 0 stays.
    """
    moved = path - path.mean(1, keepdim=True)
    known = positions - positions.mean(1, keepdim=True)
    names = f"map_correlation_{which}", f"map_gain_{which}"
    if min(moved.abs().max().item(), known.abs().max().item()) < STILL:
        return _unknown(names, "the map or the object does not move")
    together = (moved * known).sum().item()
    own, other = moved.square().sum().item(), known.square().sum().item()
    return [
        Metric(names[0], together / math.sqrt(own * other)),
        Metric(names[1], together / other),
    ]


def _unknown(names: Sequence[str], reason: str) -> list[Metric]:
    return [Metric(name, None, reason) for name in names]


def _positions(dataset: Dataset, case: Case, looked: _Looked) -> Tensor | str:
    """[M, T, 2]: the mean over the frames of each time step; or why it is not known."""
    video = case.model.video
    if video is None or not isinstance(dataset, Followed):
        return NO_OBJECT
    if case.view.crop_fraction is not None:
        return (
            "it is known of whole frames where an object is, and view.crop_fraction="
            f"{case.view.crop_fraction:g} cuts them"
        )
    steps, length = case.model.time_steps, video.tubelet_size
    frames = torch.stack([dataset.positions("eval", i) for i in looked.indices])
    return unflatten(frames[:, : steps * length], 1, (steps, length)).mean(2)


def _covered(case: Case) -> float:
    model = case.model
    return model.grid_size * model.patch_size / model.image_size


# ---------------------------------------------------------------- the file


def _saved(
    looked: _Looked, positions: Tensor | None, dataset: Dataset, case: Case
) -> SavedMaps:
    """A few of the samples, spread over them."""
    stored = hold(dataset, "eval").stored
    places = _evenly(range(len(looked.indices)), KEPT_SAMPLES)
    return SavedMaps(
        pictures=torch.stack([looked.pictures[place] for place in places]).numpy(),
        maps=looked.maps[places].half().numpy(),
        names=tuple(stored.name(looked.indices[place]) for place in places),
        labels=tuple(looked.labels[place] for place in places),
        answers=tuple(looked.answers[place] for place in places),
        covered=_covered(case),
        positions=None if positions is None else positions[places].float().numpy(),
    )


def _keep(
    saved: SavedMaps, metrics: list[Metric]
) -> tuple[list[Metric], list[Artifact]]:
    """As many samples as there is room for; how many is a metric too."""
    for count in range(len(saved.names), 0, -1):
        content = saved.first(count).as_bytes()
        if len(content) <= MAX_BYTES:
            kept = Artifact(MAPS_NAME, MEDIA_TYPE, content)
            return [*metrics, Metric("map_samples", count)], [kept]
    return [*metrics, Metric("map_samples", None, NO_ROOM)], []
