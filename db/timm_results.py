"""Results files of timm's `benchmark.py`, CSV or JSON.

Source of names and units: github.com/huggingface/pytorch-image-models, `benchmark.py`.
A row is a model; columns of inference begin with `infer_`, those of training with
`train_`. Times are means in ms, `param_count` and `macts` are in millions, `gmacs` in
10^9; all are rounded. Neither machine nor precision, versions nor date are told.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlbench.db.foreign_records import ForeignCase, ForeignTrial, UnreadableError
from tlbench.result import Metric

Row = Mapping[str, Any]

_METRICS = {
    "samples_per_sec": ("throughput_samples_per_s", 1.0),
    "step_time": ("step_time_mean_s", 1e-3),
    "fwd_time": ("forward_time_mean_s", 1e-3),
    "bwd_time": ("backward_time_mean_s", 1e-3),
    "opt_time": ("optimizer_time_mean_s", 1e-3),
    "gmacs": ("macs", 1e9),
    "macts": ("activations", 1e6),
}
"""Our name of each column behind the prefix, and what its unit is worth."""
_SETTINGS = ("batch_size", "img_size")
_PREFIXES = ("infer", "train")
_RATE = "samples_per_sec"
_NO_VALUE = "timm's file has no value here"


def is_timm(rows: object) -> bool:
    """Whether rows look like those of timm's benchmark, errors included."""
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return False
    names = {name for row in rows if isinstance(row, Mapping) for name in row}
    return "model" in names and ("error" in names or bool(_prefixes(names)))


def read(rows: Sequence[Row]) -> tuple[ForeignTrial, ...]:
    """One trial for each model and mode, in the order of the file.

    Raises UnreadableError, which names the row, where a value is no number.
    """
    prefixes = _prefixes({name for row in rows for name in row})
    columns = {p: _columns(rows, p) for p in prefixes}
    trials: list[ForeignTrial] = []
    for number, row in enumerate(rows, start=1):
        try:
            _check_cells(row)
            trials += _trials(row, columns)
        except (TypeError, ValueError, KeyError) as error:
            raise UnreadableError(f"row {number}: {_problem(error)}") from error
    if not trials:
        raise UnreadableError("no row of it has a result or an error")
    return tuple(trials)


def _check_cells(row: Row) -> None:
    more = row.get(None)  # type: ignore[call-overload]  # where csv puts what is over
    if more:
        raise ValueError(f"{more} stand in no column")


def _problem(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _prefixes(names: set[str]) -> list[str]:
    known = (*_METRICS, *_SETTINGS)
    return [p for p in _PREFIXES if any(f"{p}_{name}" in names for name in known)]


def _columns(rows: Sequence[Row], prefix: str) -> list[str]:
    """The measured columns that some row has."""
    names = {name for row in rows for name in row}
    return [name for name in _METRICS if f"{prefix}_{name}" in names]


def _trials(row: Row, columns: Mapping[str, Sequence[str]]) -> Iterator[ForeignTrial]:
    error = row.get("error")
    measured = [p for p in columns if _has_any(row, p)]
    for prefix in measured if error else columns:
        yield _measured(row, prefix, columns[prefix])
    if error:
        # timm stops a model at its first error, and says no more than the text.
        failed = next((p for p in columns if p not in measured), "unknown")
        is_oom = "out of memory" in str(error).lower()
        yield ForeignTrial(
            ForeignCase("timm", str(row["model"]), failed),
            status="oom" if is_oom else "error",
            reason=str(error),
        )


def _has_any(row: Row, prefix: str) -> bool:
    return any(_given(row, f"{prefix}_{name}") is not None for name in _METRICS)


def _measured(row: Row, prefix: str, columns: Sequence[str]) -> ForeignTrial:
    is_timed = _RATE in columns
    case = ForeignCase(
        tool="timm",
        model=str(row["model"]),
        mode=prefix if is_timed else "profile",
        image_size=_whole(row, f"{prefix}_img_size"),
        batch_size=_whole(row, f"{prefix}_batch_size"),
    )
    metrics = [
        _metric(name, _number(row, f"{prefix}_{column}"), unit)
        for column, (name, unit) in _METRICS.items()
        if column in columns
    ]
    params = _number(row, "param_count")
    if params is None:  # of a profile it keeps its prefix
        params = _number(row, f"{prefix}_param_count")
    return ForeignTrial(case, metrics=(*metrics, _metric("params", params, 1e6)))


def _metric(name: str, value: float | None, unit: float) -> Metric:
    if value is None:
        return Metric(name, None, _NO_VALUE)
    return Metric(name, value * unit)


def _given(row: Row, column: str) -> Any:
    value = row.get(column)
    return None if value == "" else value


def _number(row: Row, column: str) -> float | None:
    value = _given(row, column)
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{column}: {value!r} is not a number") from None
    if number is not None and not math.isfinite(number):
        raise ValueError(f"{column}: {value!r} is not finite")
    return number


def _whole(row: Row, column: str) -> int | None:
    value = _number(row, column)
    if value is not None and not value.is_integer():
        raise ValueError(f"{column}: {value!r} is not a whole number")
    return None if value is None else int(value)
