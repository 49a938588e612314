"""The real `pynvml` on a stand-in for NVIDIA's library that answers from a script."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
"""What pynvml asks the loader for."""


def compile_library(folder: Path, *without: str) -> Path:
    """Compile the stand-in into `folder`, or skip; some functions can be left out."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    options = ("-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
    macros = (f"-DWITHOUT_{name}" for name in without)
    command = (compiler, *options, *macros, "-o", str(folder / LIBRARY), str(SOURCE))
    subprocess.run(command, check=True)
    return folder


def ask(
    library: Path, script: str, code: str, environment: Mapping[str, str] | None = None
) -> Any:
    """Run `code` in a fresh process that finds the stand-in; what it prints as JSON."""
    (library / "script").write_text(script)
    inherited = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **inherited,
            "LD_LIBRARY_PATH": str(library),
            "NVML_SCRIPT": str(library / "script"),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
