"""What a condition means: its parts, its units, its moments."""

from datetime import UTC, datetime, timedelta

import pytest

from tlbench.db.conditions import (
    Condition,
    alternatives,
    parse_conditions,
    read_moment,
)
from tlbench.errors import ReportError

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def condition(text: str) -> Condition:
    (only,) = parse_conditions(text)
    return only


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model~TL", ("model", "~", "TL")),
        ("model!~TL", ("model", "!~", "TL")),
        ("precision!=bf16", ("precision", "!=", "bf16")),
        (" batch_size <= 8 ", ("batch_size", "<=", "8")),
        ("params<100M", ("params", "<", "100M")),
        ("model.depth>=24", ("model.depth", ">=", "24")),
        ("model=ViT-B/16+TL8@1/4", ("model", "=", "ViT-B/16+TL8@3")),
        ("model!=ViT-B/16+TL8@1/4", ("model", "!=", "ViT-B/16+TL8@3")),
    ],
)
def test_a_condition_has_a_name_an_operator_and_a_value(
    text: str, parts: tuple[str, str, str]
) -> None:
    assert condition(text) == Condition(*parts)


@pytest.mark.parametrize(
    ("text", "actual", "is_met"),
    [
        ("precision=bf16", "bf16", True),
        ("precision!=bf16", "bf16", False),
        ("batch_size=8", 8, True),
        ("batch_size=max", "max", True),
        ("batch_size>4", 8, True),
        ("batch_size>4", "max", False),
        ("batch_size<=1K", 1000, True),
        ("learning_rate=1e-3", 0.001, True),
        ("compile=true", True, True),
        ("compile=1", True, False),
        ("compile>0", True, False),
        ("memory_limit_gib=none", None, True),
        ("memory_limit_gib>1", None, False),
        ("memory_limit_gib!=1", None, True),
        ("model~TL*@", "ViT-B/16+TL8@3", True),
        ("model~tl", "ViT-B/16+TL8@3", False),
        ("model~[24]", "ViT-B/16[24]", True),
        ("model.name~on", None, False),
        ("gpu=h100", "NVIDIA H100 80GB HBM3", True),
        ("gpu~h*hbm", "NVIDIA H100 80GB HBM3", True),
        ("gpu=none", None, True),
        ("gpu!=H100", None, True),
        ("commit=0123a", "0123abcd", True),
        ("tag=nightly", ("nightly", "release"), True),
        ("tag~night", ("nightly",), True),
        ("tag=none", (), True),
    ],
)
def test_what_values_meet_a_condition(text: str, actual: object, is_met: bool) -> None:
    assert condition(text).is_met(actual) is is_met


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("params<100M", 100e6),
        ("macs<1.5e9", 1.5e9),
        ("macs<17k", 17e3),
        ("peak_memory_allocated_bytes<2GiB", 2 * 2**30),
        ("peak_memory_allocated_bytes<2GB", 2e9),
        ("peak_memory_allocated_bytes<512", 512),
        ("step_time_p50_s<50ms", 0.05),
        ("step_time_p50_s<50us", 50e-6),
        ("train_time_s>2h", 7200),
        ("train_time_s>1.5 min", 90),
        ("throughput_samples_per_s>1K", 1000),
        ("mfu>40%", 0.4),
        ("throttled_fraction>0.4", 0.4),
        ("top1_percent>=90%", 90),
    ],
)
def test_numbers_are_read_in_the_units_of_their_metric(
    text: str, number: float
) -> None:
    assert condition(text).number() == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params<1s", "'1s' is not understood as a value of params; .* 100M would be"),
        ("step_time_p50_s<2GiB", "'2GiB' is not .*; 50ms, 1.5s or 2h would be right"),
        ("batch_size<many", "'many' is not understood as a value of batch_size"),
        ("params~10", "params~10: a number has no parts; < and > compare it"),
    ],
)
def test_what_is_no_number_is_refused_with_one_that_is(text: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        condition(text).number()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("since=30d", NOW - timedelta(days=30)),
        ("since=12h", NOW - timedelta(hours=12)),
        ("since=90min", NOW - timedelta(minutes=90)),
        ("since=2w", NOW - timedelta(weeks=2)),
        ("since=2026-01-31", datetime(2026, 1, 31).astimezone(UTC)),
        ("until=2026-01-31", datetime(2026, 2, 1).astimezone(UTC)),
        ("until=2026-01-31T18:00", datetime(2026, 1, 31, 18).astimezone(UTC)),
        ("since=2026-01-31T18:00+00:00", datetime(2026, 1, 31, 18, tzinfo=UTC)),
    ],
)
def test_moments_are_spans_days_and_times(text: str, moment: datetime) -> None:
    assert read_moment(condition(text), NOW) == moment


def test_what_is_no_moment_is_refused_with_some_that_are() -> None:
    with pytest.raises(
        ReportError, match=r"'yesterday' is not .*; 30d, 12h, 2026-01-31"
    ):
        read_moment(condition("since=yesterday"))


def test_only_equal_signs_of_one_name_are_alternatives() -> None:
    conditions = parse_conditions("run=1,run=2,model~TL,model~B,mode!=fit,mode!=train")
    assert [list(map(str, group)) for group in alternatives(conditions)] == [
        ["run=1", "run=2"],
        ["model~TL"],
        ["model~B"],
        ["mode!=fit"],
        ["mode!=train"],
    ]
