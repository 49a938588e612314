"""The few-shot probe: its formula, what it learns from, and what it is asked."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from tlbench.accuracy.fewshot import (
    BIAS,
    FewShotAccuracy,
    FewShotResult,
    RidgeProbe,
    few_shot,
    remove_classifier,
)
from tlbench.data import Label, Split, SplitName
from tlbench.errors import TrialError
from tlbench.models.builders import build_whole_model
from tlbench.rank import Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

Floats = NDArray[np.float64]

CLASSES = 5
ALONE = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", 1)
MODEL = ModelSpec(
    name="tiny",
    image_size=4,
    patch_size=2,
    embed_dim=8,
    depth=1,
    num_heads=2,
    mlp_dim=8,
)


def make_case(**fewshot: Any) -> Case:
    settings = {"data": "own", "classes": CLASSES, "fewshot": fewshot}
    return Case.model_validate({"model": MODEL, "mode": "fewshot"} | settings)


class Blobs:
    """Images around one colour pattern for each class, in memory."""

    num_classes = CLASSES

    def __init__(self, of_each: int = 12) -> None:
        generator = torch.Generator().manual_seed(1)
        patterns = torch.randn(CLASSES, 3, 4, 4, generator=generator)
        self.splits = {}
        for name, count in {"train": of_each, "eval": 9}.items():
            labels = torch.arange(CLASSES).repeat(count)
            labels = labels[torch.randperm(len(labels), generator=generator)]
            noise = torch.randn(len(labels), 3, 4, 4, generator=generator)
            self.splits[name] = Split(patterns[labels] + 3 * noise, labels)

    def split(self, name: SplitName) -> Split:
        return self.splits[name]

    def stored(self, split: SplitName) -> "StoredBlobs":
        return StoredBlobs(self.splits[split])


class StoredBlobs:
    """The same as pictures; the label comes with the picture only."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self._split)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[list[Image.Image], Label]:
        self.reads.append(index)
        pixels = (self._split.images[index] * 30 + 128).clamp(0, 255)
        picture = pixels.permute(1, 2, 0).byte().numpy()
        return [Image.fromarray(picture)], int(self._split.labels[index])


class OnDisk:
    """Blobs that are not in memory."""

    num_classes = CLASSES

    def __init__(self, of_each: int = 12) -> None:
        blobs = Blobs(of_each)
        self._stored = {
            "train": StoredBlobs(blobs.split("train")),
            "eval": StoredBlobs(blobs.split("eval")),
        }

    def stored(self, split: SplitName) -> StoredBlobs:
        return self._stored[split]


class ReadsPixels(nn.Module):
    """A model whose features are the pixels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, CLASSES)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        logits: Tensor = self.head(images.flatten(1))
        return logits


def probe(case: Case, dataset: Any, model: nn.Module | None = None) -> FewShotResult:
    return few_shot(
        model or ReadsPixels(),
        dataset,
        case,
        rank=ALONE,
        dtype=torch.float32,
        batch_size=7,
        seed=3,
    )


# ---------------------------------------------------------------- the formula


def by_sklearn(features: Floats, labels: Floats, asked: Floats, l2: float) -> Floats:
    """The scores of scikit-learn's ridge, with the constant feature for its bias."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-5
    support, queries = (
        np.concatenate([(x - mean) / scale, np.full((len(x), 1), 100.0)], axis=1)
        for x in (features, asked)
    )
    targets = np.where(labels[:, None] == np.arange(CLASSES), 1.0, -1.0)
    ridge = Ridge(alpha=l2, fit_intercept=False, solver="svd").fit(support, targets)
    scores: Floats = ridge.predict(queries)
    return scores


@pytest.mark.parametrize("samples", [10, 100])
@pytest.mark.parametrize("l2", [1e-3, 1024.0])
def test_scores_are_those_of_scikit_learn(samples: int, l2: float) -> None:
    assert BIAS == 100
    generator = torch.Generator().manual_seed(0)
    features = 4 + 3 * torch.randn(samples, 40, generator=generator)
    asked = 4 + 3 * torch.randn(30, 40, generator=generator)
    labels = torch.arange(samples) % CLASSES
    found = RidgeProbe.fit(features, labels, CLASSES, l2).scores(asked)
    given, targets, queries = (x.double().numpy() for x in (features, labels, asked))
    expected = by_sklearn(given, targets, queries, l2)
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_the_answer_is_the_class_of_the_largest_score() -> None:
    features = torch.eye(CLASSES).repeat(4, 1)
    labels = torch.arange(CLASSES).repeat(4)
    found = RidgeProbe.fit(features, labels, CLASSES, 1.0)
    assert found.predict(features).tolist() == labels.tolist()


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 7.0
    labels = torch.arange(20) % CLASSES
    scores = RidgeProbe.fit(features, labels, CLASSES, 1.0).scores(features)
    assert scores.isfinite().all()


def test_the_first_samples_of_each_class_make_scenic_s_probe() -> None:
    dataset, case = Blobs(), make_case(convention="scenic", shots="1,4", l2=10.0)
    torch.manual_seed(0)
    model: Any = build_whole_model(MODEL, CLASSES)
    with torch.no_grad():
        features, asked = (
            model.forward_head(  # timm's own
                model.forward_features(dataset.split(name).images), pre_logits=True
            ).double()
            for name in ("train", "eval")
        )
    labels = dataset.split("train").labels
    result = probe(case, dataset, model)
    assert [accuracy.shots for accuracy in result.accuracies] == [1, 4]
    for accuracy in result.accuracies:
        chosen = torch.cat(
            [(labels == c).nonzero()[: accuracy.shots, 0] for c in range(CLASSES)]
        )
        scores = by_sklearn(
            features[chosen].numpy(),
            labels[chosen].double().numpy(),
            asked.numpy(),
            l2=10.0,
        )
        right = scores.argmax(axis=1) == dataset.split("eval").labels.numpy()
        (percent,) = accuracy.top1_percent
        assert percent == pytest.approx(100 * right.mean())


# ---------------------------------------------------------------- features

TINY = "ViT-d16h2m32l2/4@8"
VIDEO = "ViViT-d16h2m32l2/4x2@8x4"


@pytest.mark.parametrize(
    "name", [TINY, f"{TINY}+TL2@1", f"{TINY}+TL2fuse@1", f"{TINY}+tome(r=1)", VIDEO]
)
def test_features_are_timm_s_pre_logits(name: str) -> None:
    spec = parse_model(name)
    torch.manual_seed(0)
    model: Any = build_whole_model(spec, CLASSES).eval()
    inputs = torch.randn(2, *spec.sample_shape)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(inputs), pre_logits=True)
        remove_classifier(model)
        assert torch.equal(model(inputs), expected)
    assert expected.shape == (2, 16)


def test_features_of_a_factorised_encoder_are_what_its_classifier_is_given() -> None:
    spec = parse_model(f"{VIDEO}:encoder")
    model: Any = build_whole_model(spec, CLASSES).eval()
    given: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    clips = torch.randn(2, *spec.sample_shape)
    with torch.no_grad():
        model(clips)
        remove_classifier(model)
        assert torch.equal(model(clips), given[0])


def test_a_model_without_a_layer_called_head_has_no_features() -> None:
    with pytest.raises(TrialError, match="Sequential has no linear layer called head"):
        remove_classifier(nn.Sequential(nn.Linear(2, 2)))


# ---------------------------------------------------------------- what is drawn


def test_samples_pass_through_the_model_once_whatever_is_drawn() -> None:
    dataset, model = Blobs(), ReadsPixels()
    result = probe(make_case(shots="1,2,3", seeds=2), dataset, model)
    asked, learned = 9 * CLASSES, 2 * 3 * CLASSES
    assert (result.asked, result.passed) == (asked, asked + learned)
    assert [len(a.top1_percent) for a in result.accuracies] == [2, 2, 2]
    padding = 2 * 7  # of the last batches
    assert asked + learned <= model.seen < asked + learned + padding


def test_without_known_labels_reading_ends_when_there_is_enough() -> None:
    result = probe(make_case(shots="1", seeds=2), OnDisk(of_each=40))
    passed = result.passed - result.asked
    assert 2 * CLASSES <= passed <= 10 * CLASSES
    assert len(result.accuracies[0].top1_percent) == 2


def drawn(monkeypatch: pytest.MonkeyPatch, case: Case, dataset: Any) -> list[Floats]:
    """The features that each probe learned from, in turn."""
    seen: list[Floats] = []
    original = RidgeProbe.fit.__func__  # type: ignore[attr-defined]  # a classmethod

    def fit(features: Tensor, labels: Tensor, *settings: Any) -> RidgeProbe:
        seen.append(features.numpy())
        assert set(Counter(labels.tolist()).values()) == {len(labels) // CLASSES}
        found: RidgeProbe = original(RidgeProbe, features, labels, *settings)
        return found

    monkeypatch.setattr(RidgeProbe, "fit", fit)
    probe(case, dataset)
    return seen


def rows(features: Floats) -> set[bytes]:
    return {row.tobytes() for row in features}


def test_draws_share_no_sample_and_fewer_shots_are_some_of_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = drawn(monkeypatch, make_case(shots="1,4", seeds=3), Blobs())
    few, many = [rows(x) for x in seen[:3]], [rows(x) for x in seen[3:]]
    assert [len(x) for x in few + many] == [5, 5, 5, 20, 20, 20]
    assert len(many[0] | many[1] | many[2]) == 60
    assert all(one <= four for one, four in zip(few, many, strict=True))


def test_draws_share_samples_where_a_class_has_too_few_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = drawn(monkeypatch, make_case(shots="4", seeds=3), Blobs(of_each=5))
    assert [len(rows(x)) for x in seen] == [20, 20, 20]
    assert rows(seen[0]) != rows(seen[1])


def test_a_class_with_too_few_samples_leaves_no_probe_and_is_named() -> None:
    result = probe(make_case(shots="3,9"), Blobs(of_each=4))
    few, many = result.accuracies
    assert few.mean_percent is not None
    assert (many.mean_percent, many.deviation_percent) == (None, None)
    assert many.reason == (
        "class 0 of own has 4 training samples that can be read, and 9 are to be drawn"
    )


def test_nothing_is_asked_where_there_is_no_probe() -> None:
    result = probe(make_case(shots="9"), Blobs(of_each=4))
    assert result.asked == 0


def test_the_seed_decides_what_is_drawn() -> None:
    case, found = make_case(shots="1", seeds=1), set()
    for seed in (1, 1, 2, 3):
        result = few_shot(
            ReadsPixels(),
            Blobs(),
            case,
            rank=ALONE,
            dtype=torch.float32,
            batch_size=7,
            seed=seed,
        )
        found.add(result.accuracies[0].top1_percent)
    assert 1 < len(found) <= 3


def test_samples_with_several_labels_are_refused() -> None:
    class Tagged(OnDisk):
        def stored(self, split: SplitName) -> StoredBlobs:
            stored = super().stored(split)
            read = StoredBlobs.read
            stored.read = lambda index: (  # type: ignore[method-assign]  # of this one
                read(stored, index)[0],
                (0, 1),
            )
            return stored

    with pytest.raises(TrialError, match="few-shot probes learn one of each"):
        probe(make_case(shots="1"), Tagged())


def test_the_mean_and_the_deviation_are_those_of_the_draws() -> None:
    accuracy = FewShotAccuracy(5, (50.0, 60.0, 70.0))
    assert accuracy.mean_percent == 60
    assert accuracy.deviation_percent == pytest.approx(10)
    assert FewShotAccuracy(5, (50.0,)).deviation_percent is None
