"""A machine without a GPU, made up."""

from tlbench.machine import Machine

MACHINE = Machine(
    hostname="bench-01",
    os="Debian GNU/Linux 12",
    cpu_model="Example CPU",
    cpu_cores=2,
    memory_bytes=8 * 2**30,
    gpu_name=None,
    gpu_count=0,
    gpu_memory_bytes=None,
    gpu_driver=None,
    python="3.11.2",
    versions={"tlbench": "0.1.0", "torch": "2.9.0", "cuda": None},
    commit="0123abc",
    is_dirty=True,
)
