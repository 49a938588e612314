"""Numbers for people: the only place that leaves base units and rounds."""

import math

UNKNOWN = "\N{EN DASH}"
"""What stands where there is no value."""
EXACT_DIGITS = 15
"""A float64 has no more; longer whole numbers are written with a power of ten."""

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"), (1e-9, "ns"))
_LONG_TIMES = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def format_number(value: float | None, digits: int = 3) -> str:
    """Round to that many significant digits, but never away from the whole number.

    1234.5 is 1,234; 0.5 is 0.500, since the zeros say how exact it is. Very small and
    very large numbers have a power of ten.
    """
    if value is None:
        return UNKNOWN
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    rounded = _round(value, digits)
    exponent = math.floor(math.log10(abs(rounded)))
    if not -4 <= exponent < EXACT_DIGITS:
        return f"{rounded:.{digits - 1}e}"
    if exponent >= digits - 1:
        return f"{value:,.0f}"
    return f"{rounded:.{digits - 1 - exponent}f}"


def format_count(value: float | None) -> str:
    """A whole number: 9,999, then 86.6M; B is a billion, as the field writes it."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    number, _, prefix = format_si(value, "", digits=3).partition(" ")
    return number + prefix.replace("G", "B")


def format_counted(number: int, noun: str) -> str:
    """A number of things: `1 trial`, `1,442 trials`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_si(
    value: float | None, unit: str, *, digits: int = 4, prefix: str | None = None
) -> str:
    """With a decimal prefix: the one that fits, or the one that is asked for."""
    if value is None:
        return UNKNOWN
    if prefix is None:
        size = abs(_round(value, digits))
        fitting = [name for name, factor in _DECIMAL.items() if size >= factor]
        prefix = fitting[-1] if fitting and math.isfinite(value) else ""
    return f"{format_number(value / _DECIMAL[prefix], digits)} {prefix}{unit}".rstrip()


def format_duration(seconds: float | None) -> str:
    """12.3 ms, 1.50 s, and from a minute on its two largest units: 1 h 2 min."""
    if seconds is None or not math.isfinite(seconds):
        return format_number(seconds)
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds == 0:
        return "0 s"
    rounded = _round(seconds, 3)
    if rounded < 60:
        fitting = (time for time in _TIMES if rounded >= time[0])
        factor, unit = next(fitting, _TIMES[-1])
        return f"{format_number(seconds / factor)} {unit}"
    for large_s, large, small_s, small in _LONG_TIMES:
        whole_s = round(seconds / small_s) * small_s
        if whole_s >= large_s:
            number, rest_s = divmod(whole_s, large_s)
            return f"{number} {large} {rest_s // small_s} {small}"
    raise AssertionError(f"{seconds} s is a minute or more")


def format_bytes(value: float | None) -> str:
    """With a binary prefix: 350 MiB, 1.50 GiB."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    size = float(value)
    for unit in _BINARY:
        if abs(round(size)) < 1024 or unit == _BINARY[-1]:
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{format_number(size)} {unit}"


def format_percent(value: float | None) -> str:
    """90.4 %, 0.0213 %; the value is in percent already."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f} %" if abs(value) >= 10 else f"{format_number(value)} %"


def format_fraction(value: float | None) -> str:
    """As a percentage: 0.904 is 90.4 %."""
    return UNKNOWN if value is None else format_percent(100 * value)


def format_rate(per_s: float | None, what: str = "samples") -> str:
    """So many a second: 1,234 samples/s."""
    return UNKNOWN if per_s is None else f"{format_number(per_s)} {what}/s"


def format_metric(name: str, value: float | None) -> str:
    """The value of a metric in the unit that the end of its name tells."""
    if value is None:
        return UNKNOWN
    if name.endswith("flops_per_s"):
        return format_si(value, "FLOP/s")
    if name.endswith("bytes_per_s"):
        return format_si(value, "B/s")
    if name.endswith("_per_s"):
        return format_rate(value, name.removesuffix("_per_s").rpartition("_")[2])
    if name.endswith("macs"):  # one prefix for all, so that a column compares
        return format_si(value, "MACs", prefix="G")
    if name.endswith("flops"):
        return format_si(value, "FLOPs", prefix="G")
    for suffix, formatted in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return formatted(value)
    is_whole = math.isfinite(value) and value == int(value)
    return format_count(value) if is_whole else format_number(value)


_BY_SUFFIX = {
    "_bytes": format_bytes,
    "_percent": format_percent,
    "_fraction": format_fraction,
    "mfu": format_fraction,
    "_j_per_sample": lambda value: format_si(value, "J/sample", digits=3),
    "_w": lambda value: format_si(value, "W", digits=3),
    "_hz": lambda value: format_si(value, "Hz", digits=3),
    "_celsius": lambda value: f"{format_number(value)} \N{DEGREE SIGN}C",
    "_s": format_duration,
    "params": format_count,
}


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")
