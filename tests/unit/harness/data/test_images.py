"""Images in every layout in which people hold them, and in wrong ones."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image

from support.images import SHADE_ERROR, encoded, shade_of, write_image
from tlbench.data import Dataset, SplitName, Stored
from tlbench.data.image_files import decode
from tlbench.data.images import Images, open_own_images
from tlbench.errors import TrialError, UnreadableSampleError

CLASSES = ("beet", "fig", "kale")
SHADES = {"beet": 40, "fig": 120, "kale": 200}
COUNTS: dict[SplitName, int] = {"train": 3, "eval": 2}
"""Images of each class; the n-th of a class is n x 10 lighter than its first."""
Layout = Literal["folders", "shards", "shards in folders", "json", "saved", "parquet"]
FOLDERS: dict[SplitName, str] = {"train": "train", "eval": "val"}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def samples(split: SplitName) -> Iterable[tuple[int, str, int, int]]:
    """Number, class, place in it and shade of each, the classes taking turns."""
    number = 0
    for place in range(COUNTS[split]):
        for name in CLASSES:
            yield number, name, place, SHADES[name] + 10 * place
            number += 1


def write_folders(root: Path, split: SplitName) -> None:
    for _, name, place, shade in samples(split):
        write_image(root / FOLDERS[split] / name / f"{name}_{place}.JPEG", shade)


def write_shards(root: Path, split: SplitName, layout: Layout) -> None:
    """As timm's shards of ImageNet are called, or in a folder of their split."""
    words = {"train": "train", "eval": "validation"}
    stem = root / f"imagenet1k-{words[split]}-"
    if layout == "shards in folders":
        (root / FOLDERS[split]).mkdir(exist_ok=True)
        stem = root / FOLDERS[split] / "0000"
    writers = [webdataset.TarWriter(f"{stem}{shard}.tar") for shard in range(2)]
    for number, name, _, shade in samples(split):
        label = CLASSES.index(name)
        described = {"json": {"label": label, "filename": f"{name}.jpg"}}
        sample = described if layout == "json" else {"cls": label}
        writers[number % 2].write(
            {"__key__": f"{name}_{number}", "jpg": encoded(shade), **sample}
        )
    for writer in writers:
        writer.close()


def table(split: SplitName) -> datasets.Dataset:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES))
    )
    rows = [
        {"image": {"bytes": encoded(shade), "path": None}, "label": CLASSES.index(name)}
        for _, name, _, shade in samples(split)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def write_tables(root: Path, layout: Layout) -> None:
    if layout == "saved":
        splits = {"train": table("train"), "validation": table("eval")}
        datasets.DatasetDict(splits).save_to_disk(root)
        return
    (root / "data").mkdir()
    table("train").to_parquet(root / "data" / "train-00000-of-00001.parquet")
    table("eval").to_parquet(root / "data" / "validation-00000-of-00001.parquet")


def write_layout(root: Path, layout: Layout) -> Path:
    root.mkdir()
    if layout in ("saved", "parquet"):
        write_tables(root, layout)
        return root
    for split in COUNTS:
        if layout == "folders":
            write_folders(root, split)
        else:
            write_shards(root, split, layout)
    return root


def own(root: Path, num_classes: int = 3) -> Dataset:
    return open_own_images(path=str(root), num_classes=num_classes, video=None)


def labelled_shades(stored: Stored) -> list[tuple[int, int]]:
    """Label and shade of all samples, to the tens, sorted."""
    read = [stored.read(index) for index in range(len(stored))]
    found = []
    for frames, label in read:
        assert isinstance(label, int)
        shade = round(shade_of(frames), -1)
        assert abs(shade - shade_of(frames)) <= SHADE_ERROR
        found.append((label, shade))
    return sorted(found)


LAYOUTS: tuple[Layout, ...] = (
    "folders",
    "shards",
    "shards in folders",
    "json",
    "saved",
    "parquet",
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_layout_holds_the_same_samples(
    tmp_path: Path, layout: Layout, split: SplitName
) -> None:
    stored = own(write_layout(tmp_path / "data", layout)).stored(split)
    wanted = sorted(
        (CLASSES.index(name), shade) for _, name, _, shade in samples(split)
    )
    assert labelled_shades(stored) == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_are_known_before_the_images_are_read(
    tmp_path: Path, layout: Layout
) -> None:
    stored = own(write_layout(tmp_path / "data", layout)).stored("train")
    labels = [stored.label(index) for index in range(len(stored))]  # type: ignore[attr-defined]  # all of ours have it
    assert labels == [stored.read(index)[1] for index in range(len(stored))]
    assert len({stored.name(index) for index in range(len(stored))}) == len(stored)


def test_classes_are_numbered_by_the_alphabet_or_by_themselves(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        write_image(tmp_path / name / "x.jpg", 100)
    stored = own(tmp_path, 11).stored("train")
    assert {stored.name(i): stored.read(i)[1] for i in range(len(stored))} == {
        "10/x.jpg": 10,
        "9/x.jpg": 9,
        "2/x.jpg": 2,
    }


def test_images_that_nobody_has_split_are_split_by_every_fifth(tmp_path: Path) -> None:
    for name in CLASSES:
        for number in range(1, 12):
            write_image(tmp_path / name / f"{number}.png", 100)
    dataset = own(tmp_path)
    train, held_out = dataset.stored("train"), dataset.stored("eval")
    assert sorted(held_out.name(index) for index in range(len(held_out))) == sorted(
        f"{name}/{number}.png" for name in CLASSES for number in (5, 10)
    )
    names = {stored.name(i) for stored in (train, held_out) for i in range(len(stored))}
    assert (len(train), len(names)) == (27, 33)


def test_a_name_that_is_not_unicode_is_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in CLASSES:
        write_image(tmp_path / "train" / name / "x.jpg", SHADES[name])
    odd = os.fsencode(tmp_path / "train" / "fig") + b"/caf\xe9.jpg"
    os.rename(tmp_path / "train" / "fig" / "x.jpg", odd)  # noqa: PTH104  # bytes
    assert labelled_shades(own(tmp_path).stored("train"))[1] == (1, 120)


def test_images_of_other_modes_become_rgb(tmp_path: Path) -> None:
    for name, mode in zip(CLASSES, ("L", "CMYK", "P"), strict=True):
        ending = "png" if mode == "P" else "jpg"
        (tmp_path / name).mkdir()
        Image.new(mode, (4, 4)).save(tmp_path / name / f"x.{ending}")
    stored = own(tmp_path).stored("train")
    assert [stored.read(index)[0][0].mode for index in range(3)] == ["RGB"] * 3


def file_of(image: Image.Image, kind: str, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **options)
    return file


def pixels(file: BytesIO) -> list[list[int]]:
    found: list[list[int]] = np.asarray(decode(file)).reshape(-1, 3).tolist()
    return found


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_keeps_its_shades(kind: str) -> None:
    shades = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    found = pixels(file_of(Image.fromarray(shades), kind))
    assert found == [[shade] * 3 for shade in (0, 0, 1, 0x12, 0x80, 255)]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_of_unknown_range_is_unreadable(kind: type[np.generic]) -> None:
    file = file_of(Image.fromarray(np.array([[1, 70_000]], kind)), "TIFF")
    with pytest.raises(UnreadableSampleError, match="nothing says how bright any is"):
        decode(file)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [1, b"\x00\x80"])
def test_a_palette_with_transparency_keeps_its_colours(
    transparency: int | bytes,
) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = pixels(file_of(image, "PNG", transparency=transparency))
    assert found == [[10, 20, 30], [40, 50, 60]]


def test_grey_with_transparency_keeps_its_shades() -> None:
    image = Image.fromarray(np.array([[[100, 0], [200, 255]]], np.uint8), "LA")
    assert pixels(file_of(image, "PNG")) == [[100] * 3, [200] * 3]


def test_printing_colours_become_those_of_a_screen() -> None:
    image = Image.new("CMYK", (1, 1), (255, 0, 0, 0))  # all cyan
    assert pixels(file_of(image, "TIFF")) == [[0, 255, 255]]


def test_an_image_deeper_in_a_class_is_of_that_class(tmp_path: Path) -> None:
    for name in CLASSES:
        write_image(tmp_path / "train" / name / "images" / "x.jpg", SHADES[name])
    write_image(tmp_path / "train" / "beet" / "fig" / "y.jpg", SHADES["beet"])
    assert labelled_shades(own(tmp_path).stored("train")) == [
        (0, 40),
        (0, 40),
        (1, 120),
        (2, 200),
    ]


@pytest.mark.parametrize("layout", ["shards", "parquet"])
def test_of_two_splits_to_evaluate_on_the_likelier_counts(
    tmp_path: Path, layout: Layout
) -> None:
    root = write_layout(tmp_path / "data", layout)
    for file in [*root.glob("*train-*"), *root.glob("data/train-*")]:
        file.rename(file.with_name(file.name.replace("train", "test")))
    assert len(own(root).stored("eval")) == len(CLASSES) * COUNTS["eval"]
    for file in [*root.glob("*validation-*"), *root.glob("data/validation-*")]:
        file.unlink()
    assert len(own(root).stored("eval")) == len(CLASSES) * COUNTS["train"]


@pytest.mark.parametrize("archive", ["ILSVRC2012_img_train.tar", "train.parquet"])
def test_class_folders_count_and_not_the_archives_beside_them(
    tmp_path: Path, archive: str
) -> None:
    root = write_layout(tmp_path / "data", "folders")
    (root / archive).write_bytes(b"what they came from")
    assert len(own(root).stored("train")) == len(CLASSES) * COUNTS["train"]


@pytest.mark.parametrize(
    ("layout", "number", "name"),
    [
        ("parquet", 8, "data/train-00000-of-00002.parquet/row 8"),
        ("parquet", 9, "data/train-00001-of-00002.parquet/row 0"),
        ("saved", 2, "train/row 2"),
    ],
)
def test_a_row_is_called_by_its_part_of_the_table(
    tmp_path: Path, layout: Layout, number: int, name: str
) -> None:
    root = write_layout(tmp_path / "data", layout)
    if layout == "parquet":
        first = root / "data" / "train-00000-of-00001.parquet"
        first.rename(root / "data" / "train-00000-of-00002.parquet")
        table("eval").to_parquet(root / "data" / "train-00001-of-00002.parquet")
    stored = own(root).stored("train")
    assert stored.name(number) == name


def test_a_name_in_a_tar_that_is_not_unicode_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for ending, content in (("jpg", encoded(90)), ("cls", b"2")):
            member = tarfile.TarInfo(f"caf\udce9.{ending}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    stored = own(tmp_path).stored("train")
    assert labelled_shades(stored) == [(2, 90)]
    assert stored.name(0) == "train-0.tar/caf\udce9"


# ---------------------------------------------------------------- what is broken


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(90, size=(512, 512))[:-200], "it cannot be decoded: .*is truncated"),
        (b"", "it cannot be decoded: cannot identify image file"),
        (b"<html>not found</html>", "it cannot be decoded: cannot identify image file"),
    ],
)
def test_a_broken_image_is_unreadable(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    root = write_layout(tmp_path / "data", "folders")
    (root / "train" / "fig" / "fig_0.JPEG").write_bytes(content)
    stored = own(root).stored("train")
    with pytest.raises(UnreadableSampleError, match=reason):
        stored.read(3)
    assert stored.name(3) == "fig/fig_0.JPEG"


def test_an_image_that_has_gone_since_it_was_listed_is_unreadable(
    tmp_path: Path,
) -> None:
    root = write_layout(tmp_path / "data", "folders")
    stored = own(root).stored("train")
    (root / "train" / stored.name(0)).unlink()
    with pytest.raises(UnreadableSampleError, match="the file is missing"):
        stored.read(0)


def test_a_row_without_an_image_is_unreadable(tmp_path: Path) -> None:
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    rows = datasets.Dataset.from_list([{"image": None, "label": 1}], features=features)
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "data")
    stored = own(tmp_path / "data").stored("train")
    with pytest.raises(UnreadableSampleError, match="there is no image in it"):
        stored.read(0)


# ---------------------------------------------------------------- what is wrong


def test_two_names_of_one_class_are_refused(tmp_path: Path) -> None:
    for name in ("1", "01", "2"):
        write_image(tmp_path / name / "x.jpg", 100)
    with pytest.raises(TrialError, match="01 and 1 are two names of one class"):
        own(tmp_path).stored("train")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=f"there is no folder {tmp_path}/gone"):
        own(tmp_path / "gone")


def test_a_folder_of_nothing_but_images_has_no_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 90)
    with pytest.raises(TrialError, match="val: there are no folders of classes in it"):
        own(tmp_path).stored("eval")


def test_classes_without_images_are_refused(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "read me.txt").touch()
    with pytest.raises(TrialError, match=r"there are no images in it; .*\.jpg, \.png"):
        own(tmp_path).stored("train")


@pytest.mark.parametrize("layout", ["folders", "saved", "parquet"])
def test_classes_of_another_number_are_refused(tmp_path: Path, layout: Layout) -> None:
    dataset = own(write_layout(tmp_path / "data", layout), 5)
    with pytest.raises(TrialError, match="3 classes are there, and 5 are expected"):
        dataset.stored("train")


def test_train_and_val_of_different_classes_are_refused(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", "folders")
    (root / "val" / "kale").rename(root / "val" / "leek")
    message = "train/ and val/ have different classes; 2 are in one only, as kale"
    with pytest.raises(TrialError, match=message):
        own(root).stored("train")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("folders", "there is no folder val/ or validate/"),
        ("shards", "none of the 2 tar files is for eval"),
        ("parquet", "no Parquet file is for eval; its name would have val or"),
    ],
)
def test_a_split_that_is_not_there_is_named(
    tmp_path: Path, layout: Layout, message: str
) -> None:
    root = write_layout(tmp_path / "data", layout)
    for path in [*root.glob("*val*"), *root.glob("data/*val*")]:
        path.rename(tmp_path / path.name)
    with pytest.raises(TrialError, match=message):
        own(root).stored("eval")


def test_a_saved_table_without_the_split_is_refused(tmp_path: Path) -> None:
    datasets.DatasetDict(train=table("train")).save_to_disk(tmp_path / "data")
    with pytest.raises(TrialError, match="of the splits train none is for eval"):
        own(tmp_path / "data").stored("eval")


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"text": "fig", "label": 1}])
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "data")
    with pytest.raises(TrialError, match="of the columns text, label one must be of"):
        own(tmp_path / "data").stored("train")


def write_shard(root: Path, *members: dict[str, object]) -> Images:
    with webdataset.TarWriter(f"{root}/train-0.tar") as writer:
        for number, member in enumerate(members):
            writer.write({"__key__": f"{number:03d}", **member})
    return Images(path=str(root), num_classes=3)


def test_a_tar_without_labels_is_refused(tmp_path: Path) -> None:
    images = write_shard(tmp_path, {"jpg": encoded(9)})
    with pytest.raises(TrialError, match=r"000\.jpg has no label; 000\.cls beside it"):
        images.stored("train")


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    images = write_shard(tmp_path, {"cls": 1})
    with pytest.raises(TrialError, match=r"train-0\.tar: there are no images in it"):
        images.stored("train")


@pytest.mark.parametrize("value", [{"width": 3}, {"label": "fig"}, {"label": True}])
def test_a_label_that_is_no_number_is_refused(
    tmp_path: Path, value: dict[str, object]
) -> None:
    stored = write_shard(tmp_path, {"jpg": encoded(9), "json": value}).stored("train")
    with pytest.raises(
        TrialError, match=r"train-0\.tar/000: its label is b'.*; a whole"
    ):
        stored.read(0)


@pytest.mark.parametrize("content", [b"no tar" * 200, json.dumps([]).encode()])
def test_a_file_that_is_only_called_tar_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "train-0.tar").write_bytes(content)
    with pytest.raises(TrialError, match=r"train-0\.tar cannot be read as a tar file"):
        Images(path=str(tmp_path), num_classes=3).stored("train")


def test_a_tar_file_cut_short_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, {"jpg": encoded(9), "cls": 1}, {"jpg": encoded(9), "cls": 1})
    shard = tmp_path / "train-0.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(TrialError, match=r"train-0\.tar cannot be read as a tar file"):
        Images(path=str(tmp_path), num_classes=3).stored("train")


def test_images_need_no_decoder_of_videos() -> None:
    code = "import sys, tlbench.data.images; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
