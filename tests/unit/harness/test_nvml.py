"""Which devices CUDA shows, told by the real pynvml from a stand-in library."""

from pathlib import Path
from typing import Any

import pytest

from support.nvml import ask, compile_library

GIB = 1024**3

TWO_GPUS = """
nvml.count 2
nvml.driver 580.65
gpu0.uuid GPU-aa11
gpu0.name NVIDIA_A100-SXM4-80GB
gpu0.memory_total 85899345920
gpu0.memory_used 0
gpu1.uuid GPU-bb22
gpu1.name NVIDIA_H100_80GB_HBM3
gpu1.memory_total 84825604096
gpu1.memory_used 0
"""
SLICED = """
gpu1.mig 1
gpu1.slot0.uuid MIG-cc33
gpu1.slot0.name NVIDIA_H100_MIG_1g.10gb
gpu1.slot0.memory_total 10737418240
gpu1.slot0.memory_used 0
gpu1.slot1.uuid MIG-dd44
gpu1.slot1.name NVIDIA_H100_MIG_1g.10gb
gpu1.slot1.memory_total 10737418240
gpu1.slot1.memory_used 0
"""

NAME_DEVICES = """
import json, sys, pynvml
from tlbench import nvml

def describe(device):
    if device is None:
        return None
    uuid = pynvml.nvmlDeviceGetUUID(device.handle)
    return [uuid, pynvml.nvmlDeviceGetUUID(device.gpu), device.is_slice]
"""
VISIBLE = """
with nvml.session():
    print(json.dumps([[describe(d) for d in nvml.visible_devices(v)] for v in {}]))
"""
OWN = """
with nvml.session():
    print(json.dumps([describe(nvml.own_device(*asked)) for asked in {}]))
"""
FINGERPRINT = """
import json
from tlbench.machine import fingerprint
m = fingerprint()
print(json.dumps([m.gpu_name, m.gpu_count, m.gpu_memory_bytes, m.gpu_driver]))
"""
A100, H100 = ["GPU-aa11", "GPU-aa11", False], ["GPU-bb22", "GPU-bb22", False]
FIRST_SLICE, SECOND_SLICE = (
    ["MIG-cc33", "GPU-bb22", True],
    ["MIG-dd44", "GPU-bb22", True],
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


def visible(library: Path, script: str, *values: str | None) -> Any:
    return ask(library, script, NAME_DEVICES + VISIBLE.format(values))


def fingerprint(library: Path, script: str, visible: str | None) -> Any:
    chosen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return ask(library, script, FINGERPRINT, chosen)


def own(library: Path, script: str, *asked: tuple[str | None, str | None]) -> Any:
    return ask(library, script, NAME_DEVICES + OWN.format(asked))


def test_all_gpus_are_visible_unless_cuda_is_told_otherwise(library: Path) -> None:
    assert visible(library, TWO_GPUS, None, "", "-1") == [[A100, H100], [], []]


def test_gpus_are_named_by_index_or_by_the_beginning_of_a_uuid(library: Path) -> None:
    values = "1", "1,0", " 0 , 1 ", "GPU-bb", "GPU-bb22,GPU-aa11"
    assert visible(library, TWO_GPUS, *values) == [
        *([H100], [H100, A100], [A100, H100], [H100], [H100, A100])
    ]


def test_an_entry_that_fits_nothing_ends_the_list(library: Path) -> None:
    values = "1,7,0", "GPU-bb22,GPU-zz,0", "none,0", "MIG-zz,0"
    assert visible(library, TWO_GPUS, *values) == [[H100], [H100], [], []]


def test_a_slice_is_named_by_its_uuid_and_knows_its_gpu(library: Path) -> None:
    found = visible(library, TWO_GPUS + SLICED, "MIG-dd44", "MIG-dd44,0")
    assert found == [[SECOND_SLICE], [SECOND_SLICE, A100]]


def test_a_gpu_in_mig_mode_stands_for_its_first_slice(library: Path) -> None:
    values = None, "1", "GPU-bb22"
    assert visible(library, TWO_GPUS + SLICED, *values) == [
        *([A100, FIRST_SLICE], [FIRST_SLICE], [FIRST_SLICE])
    ]


def test_a_gpu_in_mig_mode_without_slices_stands_for_itself(library: Path) -> None:
    assert visible(library, TWO_GPUS + "gpu1.mig 1", "1") == [[H100]]


def test_a_driver_that_knows_no_slices_has_none(tmp_path: Path) -> None:
    old = compile_library(tmp_path, "MIG")
    assert visible(old, TWO_GPUS, None, "1") == [[A100, H100], [H100]]


def test_own_device_is_found_by_its_uuid_whatever_the_order(library: Path) -> None:
    asked = ("bb22", "0"), ("dd44", "0"), ("zz", "0")
    assert own(library, TWO_GPUS + SLICED, *asked) == [FIRST_SLICE, SECOND_SLICE, None]


def test_own_device_is_the_first_visible_one_where_cuda_tells_no_uuid(
    library: Path,
) -> None:
    asked = (None, "1,0"), (None, None), (None, "7")
    assert own(library, TWO_GPUS, *asked) == [H100, A100, None]


@pytest.mark.parametrize(
    ("visible", "name", "count", "memory_bytes"),
    [
        (None, "NVIDIA A100-SXM4-80GB + NVIDIA H100 80GB HBM3", 2, 79 * GIB),
        ("1", "NVIDIA H100 80GB HBM3", 1, 79 * GIB),
        ("0,0", "NVIDIA A100-SXM4-80GB", 2, 80 * GIB),
        ("", None, 0, None),
    ],
)
def test_fingerprint_is_of_the_visible_gpus(
    library: Path,
    visible: str | None,
    name: str | None,
    count: int,
    memory_bytes: int | None,
) -> None:
    found = fingerprint(library, TWO_GPUS, visible)
    assert found == [name, count, memory_bytes, "580.65"]


def test_fingerprint_of_a_slice_is_its_own(library: Path) -> None:
    found = fingerprint(library, TWO_GPUS + SLICED, "MIG-dd44")
    assert found == ["NVIDIA H100 MIG 1g.10gb", 1, 10 * GIB, "580.65"]


def test_gpu_that_shares_the_memory_of_the_machine_has_none_of_its_own(
    library: Path,
) -> None:
    shared = TWO_GPUS.replace("gpu1.memory_total", "#")
    assert fingerprint(library, shared, "1")[1:3] == [1, None]


@pytest.mark.parametrize(
    "script",
    ["nvml.init !9", TWO_GPUS.replace("NVIDIA_A100-SXM4-80GB", "!15")],
    ids=["no driver", "lost"],
)
def test_fingerprint_names_no_gpu_where_nvml_fails(library: Path, script: str) -> None:
    assert fingerprint(library, script, None) == [None, 0, None, None]
