"""Suites whose files, or what they name, are not what one expects of a file."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

SMALL = "models: ViT-Ti/16\nmode: infer\n"
BUILDER = "models: my_model.py:build\nmode: infer\n"

Maker = Callable[[Path, Random], Path | str]
"""Fills an empty folder; returns what is given as the suite."""


def in_odd_place(folder: Path, rng: Random) -> Path | str:
    """The argument that stands for a suite, with what it names in the folder."""
    return rng.choice(PLACES)(folder, rng)


def _suite(folder: Path, text: str = SMALL, name: str = "suite.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def _folder(folder: Path, _: Random) -> Path:
    return folder


def _pipe(folder: Path, _: Random) -> Path:
    os.mkfifo(folder / "suite.yaml")
    return folder / "suite.yaml"


def _device(_: Path, rng: Random) -> str:
    return rng.choice(
        ("/dev/zero", "/dev/null", "/dev/full", "/dev/urandom", "/proc/self/mem")
    )


def _socket(folder: Path, _: Random) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "suite.yaml"))
    return folder / "suite.yaml"


def _forbidden(folder: Path, _: Random) -> Path:
    file = _suite(folder)
    file.chmod(0)
    return file


def _broken_link(folder: Path, rng: Random) -> Path:
    link = folder / "suite.yaml"
    link.symlink_to(
        rng.choice(("nothing", "suite.yaml", "/root/nothing", "suite.yaml/x"))
    )
    return link


def _odd_name(folder: Path, rng: Random) -> Path:
    names = (
        "a\nb.yaml",
        "a\tb.yaml",
        " .yaml",
        "\x1b[31m.yaml",
        "\udcff.yaml",
        "[red]x.yaml",
    )
    return _suite(
        folder,
        rng.choice((SMALL, "mode: x")),
        rng.choice((*names, "x" * 250 + ".yaml")),
    )


def _odd_path(_: Path, rng: Random) -> str:
    return rng.choice(
        (
            "",
            " ",
            "\0",
            "x\0.yaml",
            "x" * 300,
            "x/" * 3000,
            "~nobody/x",
            "smoke/",
            "a\nb",
        )
    )


def _builder(folder: Path, rng: Random) -> Path:
    """A user's file with a builder that is no such thing."""
    file = folder / "my_model.py"
    match rng.randint(0, 9):
        case 0:
            file.mkdir()
        case 1:
            os.mkfifo(file)
        case 2:
            file.write_bytes(rng.randbytes(1000))
        case 3:
            file.write_bytes(b"#" * 2**21)
        case 4:
            file.symlink_to(rng.choice(("my_model.py", "/dev/zero", "nothing")))
        case 5:
            file.write_text("(" * 50_000)
        case 6:
            file.write_text("def build(model):\n    return model\n\0")
        case 7:
            file.write_text("-" * 60_000 + "1\n" + "a." * 60_000 + "b")
        case 8:
            file.write_text(
                rng.choice(("def build(): 0", "build = 1", "async def build(m): 0"))
            )
        case _:
            pass
    return _suite(folder, BUILDER)


def _checkpoint(folder: Path, rng: Random) -> Path:
    """Weights that are no file, or a file that is none."""
    os.mkfifo(folder / "pipe")
    (folder / "broken").symlink_to("nothing")
    (folder / "empty").touch()
    (folder / "random").write_bytes(rng.randbytes(5000))
    return _suite(folder, SMALL + f"checkpoint: {{path: {rng.choice(PATHS)}}}\n")


def _data(folder: Path, rng: Random) -> Path:
    path = rng.choice(PATHS)
    where = rng.choice(("paths: {{imagenet-1k: {}}}", "storage: {}"))
    return _suite(folder, f"{SMALL}data: imagenet-1k\n{where.format(path)}\n")


PATHS = (
    *(
        "pipe",
        "broken",
        "empty",
        "random",
        ".",
        "nothing",
        "/dev/zero",
        "/nothing/at/all",
    ),
    *(
        "~",
        "~nobody-here/x",
        "/root/x",
        '"\\0"',
        '"a\\nb"',
        "s3://bucket/x",
        "file:///dev/zero",
    ),
    *(
        "'s3://user:word@host/x'",
        "'zip://a::s3://b'",
        '"\\uD800"',
        "x" * 5000,
        "/proc/self/mem",
    ),
)
PLACES: tuple[Maker, ...] = (
    *(_folder, _pipe, _device, _socket, _forbidden, _broken_link, _odd_name, _odd_path),
    *(_builder, _builder, _checkpoint, _data),
)
