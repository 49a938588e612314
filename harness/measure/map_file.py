"""The file in which a trial keeps a few attention maps and the samples they lie over.

NumPy alone, so that a report reads it without torch.

M samples, T time steps (1 for images), S maps, h and w the sides of their grid, P
pixels along a side of a picture.
"""

import io
import zlib
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

MAPS_NAME = "attention_maps.npz"
MEDIA_TYPE = "application/x-npz"


@dataclass(frozen=True)
class SavedMaps:
    """The maps of the first TokenLearner of a model over some samples."""

    pictures: NDArray[np.uint8]
    """[M, T, P, P, 3]; of a clip the frame in the middle of each time step."""
    maps: NDArray[np.float16]
    """[M, T, S, h, w], as the model weighs the positions."""
    names: tuple[str, ...]
    """What the data set calls each sample."""
    labels: tuple[str, ...]
    """The class of each; several are divided by commas."""
    answers: tuple[str, ...]
    """The class that the model gives the most weight."""
    covered: float
    """Share of a side that the grid covers: patches leave the last pixels out."""
    positions: NDArray[np.float32] | None = None
    """[M, T, 2]: y and x of the object in parts of the side, where that is known."""

    def as_bytes(self) -> bytes:
        """A compressed npz that is read without pickles."""
        arrays: dict[str, NDArray[Any]] = {
            "pictures": self.pictures,
            "maps": self.maps,
            "names": np.array(self.names, dtype=np.str_),
            "labels": np.array(self.labels, dtype=np.str_),
            "answers": np.array(self.answers, dtype=np.str_),
            "covered": np.array(self.covered),
        }
        if self.positions is not None:
            arrays["positions"] = self.positions
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file.getvalue()

    def first(self, count: int) -> "SavedMaps":
        """The same of the first samples alone."""
        return SavedMaps(
            pictures=self.pictures[:count],
            maps=self.maps[:count],
            names=self.names[:count],
            labels=self.labels[:count],
            answers=self.answers[:count],
            covered=self.covered,
            positions=None if self.positions is None else self.positions[:count],
        )


def read_maps(content: bytes) -> SavedMaps:
    """What `SavedMaps.as_bytes` has written; anything else is a `ValueError`."""
    try:
        return _read(content)
    except (
        *(BadZipFile, zlib.error, EOFError, OSError),
        *(LookupError, RuntimeError, TypeError, ValueError),
    ) as error:
        raise ValueError(f"no attention maps: {error}") from error


def _read(content: bytes) -> SavedMaps:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return SavedMaps(
            pictures=arrays["pictures"],
            maps=arrays["maps"],
            names=tuple(arrays["names"].tolist()),
            labels=tuple(arrays["labels"].tolist()),
            answers=tuple(arrays["answers"].tolist()),
            covered=float(arrays["covered"]),
            positions=arrays.get("positions"),
        )
