import pytest

from tlbench import units

GIB = 1024**3


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 trials"), (1, "1 trial"), (1442, "1,442 trials")]
)
def test_one_thing_is_no_several(number: int, text: str) -> None:
    assert units.format_counted(number, "trial") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.500"),
        (0.95449, "0.954"),
        (9.999, "10.0"),
        (99.96, "100"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (-1.5, "-1.50"),
        (0.0001234, "0.000123"),
        (0.00001234, "1.23e-05"),
        (123_456_789_012_345.6, "123,456,789,012,346"),
        (1.234e15, "1.23e+15"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_number_has_three_significant_digits(value: float, text: str) -> None:
    assert units.format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (5e-10, "0.500 ns"),
        (1.5e-8, "15.0 ns"),
        (12.34e-6, "12.3 \N{MICRO SIGN}s"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.5, "1.50 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (75.4, "1 min 15 s"),
        (3599.6, "1 h 0 min"),
        (3720, "1 h 2 min"),
        (86_399, "1 d 0 h"),
        (2 * 86_400 + 3 * 3600 + 1700, "2 d 3 h"),
        (-0.25, "-250 ms"),
        (float("inf"), "inf"),
    ],
)
def test_duration_takes_the_unit_that_fits(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (350 * 1024**2, "350 MiB"),
        (1023.7 * 1024**2, "1.00 GiB"),
        (1.5 * GIB, "1.50 GiB"),
        (80 * GIB, "80.0 GiB"),
        (4096 * 1024**5, "4,096 PiB"),
        (-2 * GIB, "-2.00 GiB"),
    ],
)
def test_bytes_are_counted_in_powers_of_1024(value: float, text: str) -> None:
    assert units.format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1797, "1,797"),
        (9999, "9,999"),
        (12_345, "12.3k"),
        (86_566_120, "86.6M"),
        (999_999_999, "1.00B"),
        (1_844_440_680, "1.84B"),
    ],
)
def test_count_is_written_as_the_field_writes_it(value: int, text: str) -> None:
    assert units.format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17.4716e9, "17.47 GMACs"),
        (999.96e6, "1.000 GMACs"),
        (2820.03e9, "2.820 TMACs"),
        (12.0, "12.00 MACs"),
        (0, "0 MACs"),
        (0.5, "0.5000 MACs"),
    ],
)
def test_si_takes_the_prefix_that_fits(value: float, text: str) -> None:
    assert units.format_si(value, "MACs") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (90.4167, "90.4 %"),
        (99.97, "100.0 %"),
        (100, "100.0 %"),
        (8.3364, "8.34 %"),
        (0.02131, "0.0213 %"),
        (0, "0 %"),
    ],
)
def test_percent_is_taken_as_percent(value: float, text: str) -> None:
    assert units.format_percent(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("step_time_p50_s", 0.0123, "12.3 ms"),
        ("time_to_accuracy_s", 75.0, "1 min 15 s"),
        ("peak_memory_allocated_bytes", 1.5 * GIB, "1.50 GiB"),
        ("top1_percent", 90.4167, "90.4 %"),
        ("throughput_samples_per_s", 1234.5, "1,234 samples/s"),
        ("throughput_per_device_samples_per_s", 61.7, "61.7 samples/s"),
        ("matmul_flops_per_s", 9.894e14, "989.4 TFLOP/s"),
        ("macs", 2820.03e9, "2,820 GMACs"),
        ("counter_macs", 3.1e6, "0.003100 GMACs"),
        ("flops", 34.9432e9, "34.94 GFLOPs"),
        ("train_flops", 104.83e9, "104.8 GFLOPs"),
        ("params", 86_566_120, "86.6M"),
        ("trainable_params", 86_566_120, "86.6M"),
        ("tokens_final", 8.0, "8"),
        ("n_eval", 360.0, "360"),
        ("mfu", 0.4567, "45.7 %"),
        ("throttled_fraction", 0.0312, "3.12 %"),
        ("energy_j_per_sample", 12.345, "12.3 J/sample"),
        ("power_w", 412.3, "412 W"),
        ("gpu_clock_hz", 1.98e9, "1.98 GHz"),
        ("gpu_temperature_celsius", 71.0, "71.0 \N{DEGREE SIGN}C"),
        ("involuntary_switches_per_s", 137.6, "138 switches/s"),
        ("loss", 0.34567, "0.346"),
        ("loss", float("inf"), "inf"),
        ("macs", None, "\N{EN DASH}"),
        ("loss", None, "\N{EN DASH}"),
    ],
)
def test_metric_is_shown_in_the_unit_of_its_name(
    name: str, value: float | None, text: str
) -> None:
    assert units.format_metric(name, value) == text


@pytest.mark.parametrize(
    "text",
    [
        units.format_number(None),
        units.format_duration(None),
        units.format_bytes(None),
        units.format_count(None),
        units.format_si(None, "MACs"),
        units.format_percent(None),
        units.format_fraction(None),
        units.format_rate(None),
    ],
)
def test_unknown_is_a_dash_and_never_zero(text: str) -> None:
    assert text == "\N{EN DASH}"
