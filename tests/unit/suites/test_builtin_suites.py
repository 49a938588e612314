"""The built-in suites: the models of each figure at every scale, and their cost."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tlbench.errors import UnknownCostError
from tlbench.frontier import limit_bytes, predict_largest
from tlbench.models import cost
from tlbench.models.memory import predicted_memory_bytes
from tlbench.plan import order_trials
from tlbench.rank import DeviceKind
from tlbench.suites.loader import builtin_suites, load_suite
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.published import RESULTS, SCORES, half_a_digit
from tlbench.suites.spec import Case, Suite

# The models of figures and tables, as the publication lists them.
FIGURE_4 = [
    "ViT-B/16",
    *("ViT-B/16+TL8v1@0", "ViT-B/16+TL8v1@3", "ViT-B/16+TL8v1@6", "ViT-B/16+TL8v1@9"),
    *("ViT-B/16+TL16v1@0", "ViT-B/16+TL16v1@3"),
    *("ViT-B/16+TL16v1@6", "ViT-B/16+TL16v1@9"),
]
FEW_SHOT_FIGURE = [
    *("ViT-S/32", "ViT-S/32+TL8v1@6", "ViT-S/32[22]+TL8v1@11"),
    *("ViT-B/32", "ViT-B/32[20]+TL8v1@10"),
    *("ViT-B/16", "ViT-B/16+TL16v1@6", "ViT-B/16[21]+TL8v1@10"),
]
TABLE_1 = [
    *("ViT-S/32@384", "ViT-S/32@384+TL8v1@6", "ViT-S/32[22]@384+TL8v1@11"),
    *("ViT-B/32@384", "ViT-B/32[20]@384+TL8v1@10"),
    *("ViT-B/16@384", "ViT-B/16@384+TL16v1@6"),
    *("ViT-B/16[21]@384+TL8v1@10", "ViT-B/16[21]@384+TL16v1@10"),
]
TABLE_2 = [
    *("ViT-L/16@512", "ViT-L/16@512+TL16v1@12", "ViT-L/16[35]@512+TL16v1@12"),
    *("ViT-L/16[30]@512+TL8v1@18", "ViT-L/14[35]@512+TL16v1@18"),
]
TABLE_3 = [
    *("ViT-G/14@518", "ViT-H/14@518"),
    *("ViT-L/10[35]@512+TL16v1@18", "ViT-L/8[35]@512+TL16v1@18"),
]
TABLE_4 = [
    *("ViT-B/16@384+TL8v1@6", "ViT-B/16@384+TL8v1fuse@6"),
    *("ViT-B/16@384+TL16v1@6", "ViT-B/16@384+TL16v1fuse@6"),
    *("ViT-L/16@512+TL16v1@12", "ViT-L/16@512+TL16v1fuse@12"),
    *("ViT-L/16@512+TL8v1@18", "ViT-L/16@512+TL8v1fuse@18"),
    *("ViT-L/10[35]@512+TL16v1@18", "ViT-L/10[35]@512+TL16v1fuse@18"),
]
TABLE_5 = [
    *("ViT-L/16@512", "ViT-L/16@512+TL16v1@12", "ViT-L/16@512+pool4@9,18"),
    *("ViT-L/16@512+pool4@12,18", "ViT-L/16@512+pool8@12"),
]
TABLES_6_TO_8 = [
    *("ViViT-L/16x2", "ViViT-L/16x2@320", "ViViT-H/16x2"),
    *("ViViT-L/16x2+TL16v1@12", "ViViT-L/16x2[30]+TL8v1@18"),
    "ViViT-L/14x2[35]+TL16v1@18",
    *("ViViT-L/10x2[35]+TL16v1@18", "ViViT-L/10x2[35]+TL16v1fuse@18"),
]
VIVIT_MODELS_1_TO_4 = [
    *("ViViT-B/16x2", "ViViT-B/16x2:encoder"),
    *("ViViT-B/16x2:attention", "ViViT-B/16x2:dotproduct"),
]
VIVIT_B = ["ViViT-B/16x2+TL16v1@6", "ViViT-B/16x2+TL8v1@9"]
OPPONENTS = ["random(keep=16,place=12)", "stride(place=12,step=8)", "tome(r=40)"]

TOKENS = [
    *("ViT-B/16", "ViT-B/16+TL2v1@6", "ViT-B/16+TL4v1@6", "ViT-B/16+TL8v1@6"),
    *("ViT-B/16+TL16v1@6", "ViT-B/16+TL32v1@6", "ViT-B/16+TL64v1@6"),
]
FULL = {
    "placement": FIGURE_4,
    "tokens": TOKENS,
    "tradeoff": [*FEW_SHOT_FIGURE, *TABLE_1, *TABLE_2, "ViT-L/14@512"],
    "large": TABLE_3,
    "video": TABLES_6_TO_8 + VIVIT_MODELS_1_TO_4 + VIVIT_B,
    "fuser": ["ViT-B/16@384", "ViT-L/16@512", *TABLE_4],
    "pooling": TABLE_5 + [f"ViT-L/16@512+{builder}" for builder in OPPONENTS],
    "scaling": ["ViT-B/16", "ViT-B/16+TL8v1@6"],
    "overhead": ["ViT-S/16", "ViT-S/16+TL8v1@6"],
    "frontier": [
        *("ViT-B/16", "ViT-B/16+TL8v1@6", "ViT-L/16", "ViT-L/16+TL8v1@12"),
    ],
    "large-train": [name for name in TABLE_3 if name != "ViT-H/14@518"],
    "break-even": [
        *("ViT-B/16", "ViT-B/16@384", "ViT-B/16@512"),
        *("ViT-B/16+TL8v1@6", "ViT-B/16@384+TL8v1@6", "ViT-B/16@512+TL8v1@6"),
        *("ViViT-B/16x2", "ViViT-B/16x2@224x8", "ViViT-B/16x2@224x16"),
        *("ViViT-B/16x2+TL8v1@6", "ViViT-B/16x2@224x8+TL8v1@6"),
        "ViViT-B/16x2@224x16+TL8v1@6",
    ],
}
"""The models of each suite; those of `profile` are the same."""
CPU = {
    "placement": [
        *FIGURE_4,
        *("mini", "mini+TL8v1@0", "mini+TL8v1@1", "mini+TL8v1@2", "mini+TL8v1@3"),
        *("mini+TL16v1@0", "mini+TL16v1@1", "mini+TL16v1@2", "mini+TL16v1@3"),
    ],
    "tokens": [
        *TOKENS,
        *("mini", "mini+TL1v1@2", "mini+TL2v1@2", "mini+TL4v1@2", "mini+TL8v1@2"),
        *("mini+TL16v1@2", "mini+TL32v1@2"),
    ],
    "tradeoff": [*FEW_SHOT_FIGURE, "ViT-L/16", "ViT-L/16+TL16v1@12"],
    "large": [name for name in TABLE_3 if name != "ViT-H/14@518"],
    "video": [
        *("ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12", "ViViT-L/16x2[30]+TL8v1@18"),
        *("ViViT-B/16x2", *VIVIT_B),
    ],
    "fuser": [
        *("ViT-B/16", "ViT-B/16+TL8v1@6", "ViT-B/16+TL8v1fuse@6"),
        *("ViT-B/16+TL16v1@6", "ViT-B/16+TL16v1fuse@6"),
        *("mini", "mini+TL8v1@2", "mini+TL8v1fuse@2"),
        *("mini+TL16v1@2", "mini+TL16v1fuse@2"),
    ],
    "pooling": [
        *("ViT-B/16", "ViT-B/16+TL16v1@6", "ViT-B/16+pool3@6"),
        *("ViT-B/16+random(keep=16,place=6)", "ViT-B/16+stride(place=6,step=4)"),
        "ViT-B/16+tome(r=16)",
        *("mini", "mini+TL9v1@2", "mini+pool2@2", "mini+random(keep=9,place=2)"),
        *("mini+stride(place=2,step=3)", "mini+tome(r=10)"),
    ],
    "scaling": ["ViT-Ti/16", "ViT-Ti/16+TL8v1@6"],
    "overhead": ["ViT-Ti/16", "ViT-Ti/16+TL8v1@6"],
    "frontier": ["ViT-Ti/16", "ViT-Ti/16+TL8v1@6", "ViT-S/16", "ViT-S/16+TL8v1@6"],
    "large-train": ["ViT-Ti/16", "ViT-Ti/16[17]+TL16v1@9"],
    "break-even": [
        *("ViT-Ti/16@64", "ViT-Ti/16@96", "ViT-Ti/16@128", "ViT-Ti/16"),
        *("ViT-Ti/16@64+TL8v1@6", "ViT-Ti/16@96+TL8v1@6"),
        *("ViT-Ti/16@128+TL8v1@6", "ViT-Ti/16+TL8v1@6"),
    ],
}
SCALES = ("cpu", "profile")


def every_suite() -> Iterator[tuple[str, str | None]]:
    """Each built-in suite as it stands and at each of its scales."""
    for name, item in builtin_suites().items():
        yield name, None
        yield from ((name, scale) for scale in item.scales)


@pytest.fixture(params=every_suite(), ids=lambda p: f"{p[0]}-{p[1] or 'full'}")
def suite(request: pytest.FixtureRequest) -> Suite:
    name, scale = request.param
    return load_suite(name, scale=scale)


def header(name: str) -> str:
    """The comment that a built-in suite begins with."""
    text = (files("tlbench.suites") / f"{name}.yaml").read_text("utf-8")
    return text.partition("\nname:")[0]


def models(cases: Iterator[Case] | tuple[Case, ...]) -> list[str]:
    """The names of the models, each once."""
    return list(dict.fromkeys(model_name(case.model) for case in cases))


def test_there_is_one_suite_for_each_figure_with_both_scales() -> None:
    scales = {name: item.scales for name, item in builtin_suites().items()}
    assert scales.pop("smoke") == scales.pop("proxy") == ()
    assert scales == dict.fromkeys(sorted(FULL), SCALES)


def test_the_proxy_compares_ways_to_equally_few_tokens() -> None:
    """At half of the blocks: 9 of 49 tokens of images, 16 of 64 of clips."""
    cases = [case for case in load_suite("proxy").cases if case.mode == "fit"]
    assert load_suite("proxy").repeats["fit"] == 3
    found = models(tuple(cases))
    assert {name for name in found if name.startswith("mini+")} >= {
        *(f"mini+TL{count}@{place}" for count in (8, 16) for place in range(4)),
        *("mini+TL9@2", "mini+TL9v1@2", "mini+pool2@2"),
        *("mini+fixed(place=2,tokens=9)", "mini+random(keep=9,place=2)"),
        "mini+stride(place=2,step=3)",
    }
    assert {name for name in found if name.startswith("mini-clips+")} == {
        *("mini-clips+TL4@2", "mini-clips+pool2@2"),
        "mini-clips+fixed(place=2,tokens=4)",
        *("mini-clips+random(keep=16,place=2)", "mini-clips+stride(place=2,step=2)"),
    }


@pytest.mark.parametrize("name", FULL)
def test_models_are_those_of_the_figure(name: str) -> None:
    for scale, expected in ((None, FULL), ("profile", FULL), ("cpu", CPU)):
        found = models(load_suite(name, scale=scale).cases)
        assert sorted(found) == sorted(expected[name]), scale


@pytest.mark.parametrize("name", FULL)
def test_first_model_is_a_plain_one_to_compare_with(name: str) -> None:
    # Comparisons fall back on the run's first model.
    for scale in (None, *SCALES):
        assert "+" not in models(load_suite(name, scale=scale).cases)[0]


@pytest.mark.parametrize("scale", [None, *SCALES])
@pytest.mark.parametrize("name", FULL)
def test_every_model_is_profiled_and_some_are_run(name: str, scale: str | None) -> None:
    cases = load_suite(name, scale=scale).cases
    assert models(c for c in cases if c.mode == "profile") == models(cases)
    assert ({case.mode for case in cases} == {"profile"}) == (scale == "profile")


def test_every_cost_is_known_but_that_of_a_builder(suite: Suite) -> None:
    for case in suite.cases:
        try:
            assert cost.params(case.model, case.num_classes) > 0
            assert cost.macs(case.model, case.num_classes) > 0
        except UnknownCostError:
            assert case.model.builder is not None


def test_full_scale_asks_for_gpus_and_cpu_scale_for_cpus() -> None:
    for name in FULL:
        asked = {(c.device, c.precision) for c in load_suite(name).cases}
        both = {("cuda", "fp32")} if name == "frontier" else set()
        # profile runs anywhere
        assert asked == {("auto", "fp32"), ("cuda", "bf16")} | both
        asked = {(c.device, c.precision) for c in load_suite(name, scale="cpu").cases}
        assert asked == {("auto", "fp32"), ("cpu", "fp32")}


@pytest.mark.parametrize(("scale", "limit"), [(None, 80e9), ("cpu", 12e9)])
def test_no_case_is_predicted_to_outgrow_its_device(
    scale: str | None, limit: float
) -> None:
    # The memory of an A100 or H100, and half of that of a small machine with CPUs.
    for name in FULL:
        for case in load_suite(name, scale=scale).cases:
            if case.model.builder is None and case.batch_size != "max":
                assert predicted_memory_bytes(case) < limit, model_name(case.model)


@pytest.mark.parametrize("name", builtin_suites())
def test_header_begins_with_the_command_and_says_cost_and_expectation(
    name: str,
) -> None:
    assert header(name).startswith(f"# tlbench run {name} ")
    assert all(line.startswith("#") for line in header(name).splitlines())
    if name != "smoke":
        assert "`tlbench plan`" in header(name)


@pytest.mark.parametrize(("scale", "words"), [(None, "Cost:"), ("cpu", "At cpu scale")])
@pytest.mark.parametrize("name", FULL)
def test_costs_of_the_header_are_the_trials_that_are_planned(
    name: str, scale: str | None, words: str
) -> None:
    text = " ".join(header(name).replace("#", " ").split())
    told = re.search(rf"{words} (\d+) trials", text)
    assert told is not None
    assert int(told[1]) == len(order_trials(load_suite(name, scale=scale)))


PRINTED = {
    value
    for row in RESULTS
    for value in (row.gflops, row.params_millions, *(getattr(row, s) for s in SCORES))
} | {row.source.reading.gflops for row in RESULTS if row.source.reading}


UNPUBLISHED = {"break-even", "frontier", "scaling", "overhead", "large-train"}


@pytest.mark.parametrize("name", sorted(FULL.keys() - UNPUBLISHED))
def test_numbers_of_the_header_are_published(name: str) -> None:
    # Those of the tables, which are indented, and what is followed by its unit.
    rows = "\n".join(re.findall(r"^#   .*", header(name), re.M))
    numbers = re.findall(r"(?<![\d.x])(\d+\.\d+|\d{3,}(?=  |M))", rows)
    numbers += re.findall(r"(\d+(?:\.\d+)?) GFLOPS", header(name))
    assert numbers
    assert [n for n in numbers if float(n) not in PRINTED] == []


def test_the_header_of_fuser_tells_both_costs() -> None:
    words = " ".join(header("fuser").replace("#", " ").split())
    told = re.search(r"counted so, expect (.*?)\. Today.*? cost: (.*?) GMACs", words)
    assert told is not None
    specs = [parse_model(name) for name in TABLE_4 if "fuse" in name]
    counts = (cost.published_flops, cost.macs)
    for numbers, count in zip(told.groups(), counts, strict=True):
        for number, spec in zip(re.findall(r"\d+\.\d+", numbers), specs, strict=True):
            expected = count(spec, 1000) / 1e9
            error = half_a_digit(float(number))
            assert float(number) == pytest.approx(expected, abs=error)


PLAN = """
import sys
from tlbench.cli import app
app(sys.argv[1:], standalone_mode=False)
print(*sorted({"torch", "timm", "deepspeed"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["large", "large-train"])
def test_plan_of_the_largest_models_needs_no_torch(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PLAN, "plan", name, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    params = {item["model"]: item["params"] for item in json.loads(ended.stdout)}
    # 1,844,437,352 at 224 pixels, and 37 x 37 instead of 16 x 16 positions of 1,664.
    assert params["ViT-G/14@518"] == 1_844_437_352 + (37**2 - 16**2) * 1664
    assert ended.stderr.strip() == ""


@pytest.mark.parametrize("name", ["large", "video"])
def test_whole_seconds_are_timed_by_two_steps_at_cpu_scale(name: str) -> None:
    cases = [c for c in load_suite(name, scale="cpu").cases if c.mode != "profile"]
    assert {(c.mode, c.batch_size) for c in cases} == {("infer", 1)}
    assert {(c.timing.min_steps, c.timing.max_steps) for c in cases} == {(2, 2)}


def test_scaling_spreads_over_devices_under_every_zero_stage() -> None:
    for scale, world_sizes in ((None, (1, 2, 4, 8)), ("cpu", (1, 2))):
        spread = {
            (case.mode, case.parallelism.world_size, case.parallelism.zero_stage)
            for case in load_suite("scaling", scale=scale).cases
        }
        assert spread == {
            ("profile", 1, 0),
            *(("infer", size, 0) for size in world_sizes),
            *(("train", size, stage) for size in world_sizes for stage in range(4)),
        }


@pytest.mark.parametrize(("scale", "device"), [(None, "cuda"), ("cpu", "cpu")])
def test_frontier_looks_for_the_largest_batch_and_some_batch_fits(
    scale: str | None, device: DeviceKind
) -> None:
    cases = load_suite("frontier", scale=scale).cases
    timed = [case for case in cases if case.mode != "profile"]
    assert {case.batch_size for case in timed} == {"max"}
    for case in timed:
        limit = limit_bytes(case) or 80e9  # of an A100 or H100
        assert (predict_largest(case, device, limit) or 0) > 0, model_name(case.model)


def test_scaling_keeps_the_batch_of_the_job_or_that_of_each_rank() -> None:
    for scale, batch, world_sizes in ((None, 256, (1, 2, 4, 8)), ("cpu", 8, (1, 2))):
        batches = {
            (case.parallelism.world_size, case.batch_size)
            for case in load_suite("scaling", scale=scale).cases
            if case.mode == "train" and case.parallelism.zero_stage == 0
        }
        strong = {(size, batch) for size in world_sizes}
        assert batches == strong | {(size, size * batch) for size in world_sizes}


def test_overhead_runs_every_stack_on_as_many_ranks_as_it_can() -> None:
    for scale in (None, "cpu"):
        found = {
            (case.mode, case.stack, case.parallelism.world_size)
            for case in load_suite("overhead", scale=scale).cases
            if case.mode != "profile"
        }
        stacks = ("torch", "torchrun", "ray", "deepspeed")
        several = stacks[1:]
        # Inference by workers of Ray is that of the default.
        assert found == {
            *(("train", stack, 1) for stack in stacks),
            *(("train", stack, 2) for stack in several),
            *(("infer", stack, 1) for stack in stacks if stack != "ray"),
            *(("infer", stack, 2) for stack in several if stack != "ray"),
        }


@pytest.mark.parametrize(
    ("scale", "batches", "sizes"),
    [
        (None, {1, 4, 16, 64, 256}, {224, 384, 512}),
        ("cpu", {1, 4, 16}, {64, 96, 128, 224}),
    ],
)
def test_break_even_times_every_batch_at_every_size(
    scale: str | None, batches: set[int], sizes: set[int]
) -> None:
    images = {
        (case.batch_size, case.model.image_size, case.model.token_learner is None)
        for case in load_suite("break-even", scale=scale).cases
        if case.mode == "infer" and case.model.video is None
    }
    assert images == set(itertools.product(batches, sizes, (True, False)))


def test_break_even_times_every_batch_at_every_length() -> None:
    clips = {
        (case.batch_size, case.model.video.num_frames)
        for case in load_suite("break-even").cases
        if case.mode == "infer" and case.model.video is not None
    }
    assert clips == set(itertools.product((1, 4, 16), (8, 16, 32)))


def test_large_train_checkpoints_and_offloads_under_zero_3() -> None:
    for scale, spread in ((None, (16, 2)), ("cpu", (2, 1))):
        cases = load_suite("large-train", scale=scale).cases
        trained = [case for case in cases if case.mode == "train"]
        assert all(case.gradient_checkpointing for case in trained)
        assert {
            (p.world_size, p.nodes, p.zero_stage, p.offload)
            for p in (case.parallelism for case in trained)
        } == {(*spread, 3, "none"), (*spread, 3, "all")}
