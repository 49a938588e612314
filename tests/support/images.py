"""Small image files that can be told apart: each is of one shade of grey."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SHADE_ERROR = 2
"""How far JPEG may move a shade; the tests' shades lie further apart."""


def encoded(
    shade: int, *, size: tuple[int, int] = (12, 8), kind: str = "JPEG"
) -> bytes:
    """A file of that shade, which has a red border of one pixel as a PNG."""
    image = Image.new("RGB", size, (shade,) * 3)
    if kind == "PNG":
        framed = Image.new("RGB", size, (255, 0, 0))
        framed.paste(image.crop((1, 1, size[0] - 1, size[1] - 1)), (1, 1))
        image = framed
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_image(path: Path, shade: int) -> Path:
    """Make the file, and its folders; the name's ending decides its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(shade, kind="PNG" if path.suffix == ".png" else "JPEG"))
    return path


def shade_of(frames: Sequence[Image.Image]) -> int:
    """The shade of a sample of one frame, which is RGB and of one shade throughout."""
    (image,) = frames
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert np.ptp(pixels) <= 2 * SHADE_ERROR
    return round(float(pixels.mean()))
