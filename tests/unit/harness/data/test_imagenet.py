"""ImageNet-1k, ImageNet-21k, ReaL and ObjectNet in their published layouts."""

import json
from pathlib import Path

import pytest
from timm.data.real_labels import RealLabelsImagenet

from support.images import encoded, shade_of, write_image
from tlbench.data import Stored, open_dataset
from tlbench.data.imagenet import ImageNet21k, ImageNetReal, ObjectNet
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case


def labels_by_name(stored: Stored) -> dict[str, object]:
    return {stored.name(i): stored.read(i)[1] for i in range(len(stored))}


# ---------------------------------------------------------------- ImageNet-21k


def test_imagenet_21k_is_numbered_as_its_checkpoints_are(tmp_path: Path) -> None:
    for name in ("n00004475", "n00006024", "n15102894"):
        for number in range(5):
            write_image(tmp_path / name / f"{name}_{number}.JPEG", 100)
    dataset = ImageNet21k(path=str(tmp_path), num_classes=21_843)
    train, held_out = dataset.stored("train"), dataset.stored("eval")
    assert (len(train), len(held_out)) == (12, 3)
    assert labels_by_name(held_out) == {
        "n00004475/n00004475_4.JPEG": 0,
        "n00006024/n00006024_4.JPEG": 2,
        "n15102894/n15102894_4.JPEG": 21_842,
    }


def test_a_folder_that_is_no_class_of_imagenet_21k_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "tench" / "1.JPEG", 100)
    with pytest.raises(TrialError, match=r"1 folders are no classes of .*, as tench"):
        ImageNet21k(path=str(tmp_path), num_classes=21_843).stored("train")


# ---------------------------------------------------------------- ReaL


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.mark.parametrize("folder", ["val/n01440764", "val", "."])
def test_real_labels_belong_to_the_numbers_of_the_images(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "real.json").write_text("[[7], [], [1, 2]]")
    for number in (3, 1, 2):
        write_image(tmp_path / folder / val_name(number), 100)
    stored = ImageNetReal(path=str(tmp_path), num_classes=1000).stored("eval")
    labels = [stored.read(index)[1] for index in range(3)]
    assert labels == [(7,), (), (1, 2)]
    assert stored.label(2) == (1, 2)


def test_without_its_file_the_real_labels_are_those_that_timm_has(
    tmp_path: Path,
) -> None:
    numbers = (1, 2, 50_000)
    for number in numbers:
        write_image(tmp_path / "val" / val_name(number), 100)
    theirs = RealLabelsImagenet([""] * 50_000).real_labels
    assert sum(1 for labels in theirs.values() if labels) == 46_837
    stored = ImageNetReal(path=str(tmp_path), num_classes=1000).stored("eval")
    assert labels_by_name(stored) == {
        val_name(number): tuple(theirs[val_name(number)]) for number in numbers
    }


@pytest.mark.parametrize("name", ["tench.JPEG", val_name(0), val_name(4)])
def test_an_image_that_has_no_real_labels_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "real.json").write_text("[[7], [], [1, 2]]")
    write_image(tmp_path / "val" / name, 100)
    with pytest.raises(TrialError, match=f"{name}: labels are found by names from"):
        ImageNetReal(path=str(tmp_path), num_classes=1000).stored("eval")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[7, 8]", "real.json: it is no list of the lists of labels"),
        ('{"a": []}', "real.json: it is no list of the lists of labels"),
        ("[[7],", "real.json is no JSON"),
    ],
)
def test_real_labels_of_another_form_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(TrialError, match=message):
        ImageNetReal(path=str(tmp_path), num_classes=1000).stored("eval")


# ---------------------------------------------------------------- ObjectNet

IMAGENET_LABELS = ("kit fox, Vulpes macrotis", "analog clock", "plate", "wall clock")
"""By their lines in the official list, whose order is not that of the classes."""


@pytest.fixture
def objectnet(tmp_path: Path) -> Path:
    """Two folders that ImageNet has too, and one that it has not."""
    for number, folder in enumerate(("clock", "plate_", "bills_money")):
        write_image(tmp_path / "images" / folder / f"{number}.png", 40 * number)
    files = {
        "folder_to_objectnet_label.json": {
            "bills_money": "Bills (money)",
            "clock": "Clock",
            "plate_": "Plate",
        },
        "objectnet_to_imagenet_1k.json": {
            "Clock": "wall clock; analog clock",
            "Plate": "plate",
        },
        "pytorch_to_imagenet_2012_id.json": {"278": 0, "409": 1, "923": 2, "892": 3},
    }
    (tmp_path / "mappings").mkdir()
    for name, value in files.items():
        (tmp_path / "mappings" / name).write_text(json.dumps(value))
    labels = "\n".join(IMAGENET_LABELS)
    (tmp_path / "mappings" / "imagenet_to_label_2012_v2").write_text(f"{labels}\n")
    return tmp_path


def open_objectnet(root: Path) -> Stored:
    return ObjectNet(path=str(root), num_classes=1000).stored("eval")


def test_objectnet_has_the_classes_that_imagenet_has_too(objectnet: Path) -> None:
    stored = open_objectnet(objectnet)
    assert labels_by_name(stored) == {"clock/0.png": (409, 892), "plate_/1.png": (923,)}


def test_the_red_border_of_objectnet_is_cut_off(objectnet: Path) -> None:
    frames, _ = open_objectnet(objectnet).read(1)
    assert frames[0].size == (12 - 4, 8 - 4)
    assert shade_of(frames) == 40


@pytest.mark.parametrize("size", [(4, 9), (9, 3), (1, 1)])
def test_an_image_that_is_all_border_is_unreadable(
    objectnet: Path, size: tuple[int, int]
) -> None:
    file = objectnet / "images" / "plate_" / "1.png"
    file.write_bytes(encoded(40, size=size))
    with pytest.raises(UnreadableSampleError, match=f"it is {size[0]} x {size[1]} pix"):
        open_objectnet(objectnet).read(1)


def test_folders_of_objectnet_that_are_missing_are_named(objectnet: Path) -> None:
    (objectnet / "images" / "clock").rename(objectnet / "images" / "Clock")
    with pytest.raises(TrialError, match="of 2 folders 1 are missing, as clock/"):
        open_objectnet(objectnet)


def test_a_mapping_of_objectnet_that_is_missing_is_named(objectnet: Path) -> None:
    (objectnet / "mappings" / "objectnet_to_imagenet_1k.json").unlink()
    message = r"objectnet_to_imagenet_1k\.json cannot be read: No such file"
    with pytest.raises(TrialError, match=message):
        open_objectnet(objectnet)


def test_mappings_of_objectnet_that_do_not_fit_are_refused(objectnet: Path) -> None:
    (objectnet / "mappings" / "objectnet_to_imagenet_1k.json").write_text(
        '{"Plate": "dish"}'
    )
    with pytest.raises(TrialError, match="its files do not fit together: 'dish'"):
        open_objectnet(objectnet)


# ---------------------------------------------------------------- as cases open them


@pytest.mark.parametrize("name", ["imagenet-1k", "my-own"])
def test_class_folders_are_opened_by_a_case(tmp_path: Path, name: str) -> None:
    classes = [f"n{number:08d}" for number in range(1000)]
    for number, folder in enumerate(classes):
        write_image(tmp_path / "val" / folder / "x.JPEG", number % 250)
    case = Case(
        model=parse_model("ViT-Ti/16"),
        mode="evaluate",
        data=name,
        classes=1000 if name == "my-own" else None,
    )
    stored = open_dataset(case, str(tmp_path)).stored("eval")
    assert [stored.read(index)[1] for index in range(1000)] == list(range(1000))
    assert shade_of(stored.read(3)[0]) == pytest.approx(3, abs=2)
