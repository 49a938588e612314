"""MNIST-style idx files: real ones, compressed or not, and damaged ones."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tlbench.data import InMemory, hold
from tlbench.data.idx import FashionMnist, Idx, Mnist
from tlbench.data.images import open_own_images
from tlbench.errors import TrialError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PICTURES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 11
LABELS = np.array([1, 0], dtype=np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    lengths = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, 8, values.ndim)) + lengths + values.tobytes()


def write_split(root: Path, prefix: str, labels: np.ndarray = LABELS) -> None:
    pictures = PICTURES[: len(labels)]
    (root / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(pictures))
    (root / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path, "train")
    write_split(tmp_path, "t10k", LABELS[:1])
    return tmp_path


def test_pictures_lie_in_memory_between_minus_one_and_one(root: Path) -> None:
    split = Idx(path=str(root), num_classes=2).split("train")
    assert split.images.shape == (2, 3, 3, 4)
    assert split.labels.tolist() == [1, 0]
    wanted = torch.tensor(PICTURES / 255 * 2 - 1, dtype=torch.float32)
    for channel in range(3):
        torch.testing.assert_close(split.images[:, channel], wanted)


def test_stored_pictures_are_the_bytes_of_the_file(root: Path) -> None:
    stored = Idx(path=str(root), num_classes=2).stored("train")
    (image,), label = stored.read(1)
    assert (label, stored.label(1), stored.name(1)) == (0, 0, "picture 1")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image)[..., 2], PICTURES[1])


def test_the_pictures_of_t10k_are_for_evaluation(root: Path) -> None:
    dataset = Idx(path=str(root), num_classes=2)
    assert (len(dataset.stored("train")), len(dataset.stored("eval"))) == (2, 1)


@pytest.mark.parametrize("folder", [".", "raw", "MNIST/raw"])
def test_compressed_files_may_lie_where_torchvision_puts_them(
    root: Path, folder: str
) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for file in sorted(root.glob("*ubyte")):
        (root / folder / f"{file.name}.gz").write_bytes(
            gzip.compress(file.read_bytes())
        )
        file.unlink()
    assert len(Idx(path=str(root), num_classes=2).split("train")) == 2


def torchvision_root(root: Path) -> Path:
    """One data set of two pictures beside one of a single picture."""
    for name, labels in (("MNIST", LABELS), ("FashionMNIST", LABELS[:1])):
        (root / "both" / name / "raw").mkdir(parents=True)
        write_split(root / "both" / name / "raw", "train", labels)
    return root / "both"


@pytest.mark.parametrize(("kind", "count"), [(Mnist, 2), (FashionMnist, 1)])
def test_of_several_data_sets_the_one_of_that_name_is_read(
    tmp_path: Path, kind: type[Idx], count: int
) -> None:
    dataset = kind(path=str(torchvision_root(tmp_path)), num_classes=2)
    assert len(dataset.stored("train")) == count


def test_of_several_data_sets_none_is_read_by_chance(tmp_path: Path) -> None:
    dataset = open_own_images(path=str(torchvision_root(tmp_path)), num_classes=2)
    with pytest.raises(
        TrialError, match=r"is in .*/FashionMNIST/raw and in .*/MNIST/raw; the path of"
    ):
        dataset.stored("train")


def test_another_data_set_is_not_read_in_place_of_the_one_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    write_split(tmp_path / "MNIST" / "raw", "train")
    with pytest.raises(TrialError, match="there is no train-images-idx3-ubyte"):
        FashionMnist(path=str(tmp_path), num_classes=2).stored("train")


def test_idx_files_of_ones_own_are_told_by_their_names(root: Path) -> None:
    dataset = open_own_images(path=str(root), num_classes=2)
    assert isinstance(dataset, InMemory)
    held = hold(dataset, "train")
    assert held.split is not None
    assert len(held.split) == 2


def damage(root: Path, name: str, content: bytes) -> Path:
    (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "3 dimensions begins with 00 00 08 03, and this one with nothing"),
        (idx_bytes(LABELS), "begins with 00 00 08 03, and this one with 00 00 08 01"),
        (idx_bytes(PICTURES)[:10], "begins with 00 00 08 03"),
        (idx_bytes(PICTURES)[:-1], "promises 2 x 3 x 4 bytes, and there are 23"),
        (idx_bytes(PICTURES[:1]), "1 pictures are there for train, and 2 labels"),
    ],
)
def test_a_damaged_file_is_refused(root: Path, content: bytes, message: str) -> None:
    damage(root, "train-images-idx3-ubyte", content)
    with pytest.raises(TrialError, match=message):
        Idx(path=str(root), num_classes=2).split("train")


def test_a_file_that_is_only_called_gz_is_refused(root: Path) -> None:
    (root / "train-images-idx3-ubyte").unlink()
    damage(root, "train-images-idx3-ubyte.gz", idx_bytes(PICTURES))
    with pytest.raises(TrialError, match="cannot be read: Not a gzipped file"):
        Idx(path=str(root), num_classes=2).split("train")


def test_a_file_cut_short_in_its_compression_is_refused(root: Path) -> None:
    (root / "train-images-idx3-ubyte").unlink()
    cut = gzip.compress(idx_bytes(PICTURES))[:-12]
    damage(root, "train-images-idx3-ubyte.gz", cut)
    with pytest.raises(TrialError, match="cannot be read: Compressed file ended"):
        Idx(path=str(root), num_classes=2).split("train")


def test_damaged_compression_is_refused(root: Path) -> None:
    (root / "train-images-idx3-ubyte").unlink()
    content = bytearray(gzip.compress(idx_bytes(PICTURES)))
    content[10:20] = b"\xff" * 10
    damage(root, "train-images-idx3-ubyte.gz", bytes(content))
    with pytest.raises(TrialError, match=r"train-images-.*\.gz cannot be read: Error"):
        Idx(path=str(root), num_classes=2).split("train")


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        TrialError, match=r"no t10k-labels-idx1-ubyte, nor one with .gz"
    ):
        Idx(path=str(root), num_classes=2).stored("eval")


def test_a_label_beyond_the_classes_is_refused(root: Path) -> None:
    with pytest.raises(TrialError, match="a label is 1, and 1 classes are numbered"):
        Idx(path=str(root), num_classes=1).split("train")


@pytest.mark.skipif(
    not DEBIAN.is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
@pytest.mark.parametrize(
    ("split", "prefix", "count"),
    [
        pytest.param("train", "train", 60_000, marks=pytest.mark.slow),
        ("eval", "t10k", 10_000),
    ],
)
def test_fashion_mnist_is_read_as_numpy_reads_it(
    split: str, prefix: str, count: int
) -> None:
    assert split in ("train", "eval")
    with gzip.open(DEBIAN / f"{prefix}-images-idx3-ubyte.gz") as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(DEBIAN / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    dataset = Idx(path=str(DEBIAN), num_classes=10)
    read = dataset.split("train" if split == "train" else "eval")
    assert read.images.shape == (count, 3, 28, 28)
    assert np.bincount(labels).tolist() == [count // 10] * 10
    np.testing.assert_array_equal(read.labels.numpy(), labels)
    grey = (read.images[:, 1] + 1).mul_(127.5).round_().to(torch.uint8)
    np.testing.assert_array_equal(grey.numpy(), pictures)
