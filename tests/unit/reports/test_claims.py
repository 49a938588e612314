"""Verdicts on the claims: all are covered, and each number has a second way to it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from support.report_run import RunBuilder
from tlbench.models.tokenlearner import TokenLearner, TokenLearnerV11
from tlbench.models.vit import build_model
from tlbench.reports.cases import gather
from tlbench.reports.claims.counted import HALF, WORDS
from tlbench.reports.claims.judge import CHECKS, judge
from tlbench.reports.claims.measured import MOSTLY_SQUARE
from tlbench.reports.claims.records import (
    VERDICTS,
    JudgedClaim,
    Number,
    Part,
    Stand,
    Verdict,
    above,
    below,
    conclude,
)
from tlbench.reports.claims.tables import (
    claims_table,
    describe,
    published_text,
    summary_sentence,
)
from tlbench.reports.claims.trained import ALMOST_NO_LOSS, ROUNDS_TO_NO_LOSS
from tlbench.reports.compare import comparisons
from tlbench.reports.findings import MINUS
from tlbench.suites.loader import builtin_suites
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.published import CLAIMS, ClaimedMetric, Ground
from tlbench.suites.spec import Case

HALF_GIB = 2.0**29


def judged(*runs: RunBuilder) -> dict[str, JudgedClaim]:
    cases = gather(
        [run.record for run in runs], [t for run in runs for t in run.trials]
    )
    return {item.claim.id: item for item in judge(cases, comparisons(cases))}


def part(item: JudgedClaim, ground: Ground) -> Part:
    (found,) = (part for part in item.parts if part.ground == ground)
    return found


def timed(
    run: RunBuilder,
    model: str,
    throughputs: Iterable[float],
    memory: float = 2 * HALF_GIB,
    **settings: Any,
) -> None:
    case = Case.model_validate(
        {"mode": "infer", **settings, "model": parse_model(model)}
    )
    run.add(
        case,
        [
            {"throughput_samples_per_s": t, "peak_memory_host_growth_bytes": memory}
            for t in throughputs
        ],
    )


def trained(
    run: RunBuilder,
    model: str,
    top1: Iterable[float],
    macs: float = 1e9,
    data: str = "digits",
    **settings: Any,
) -> None:
    case = Case.model_validate(
        {"mode": "fit", "data": data, **settings, "model": parse_model(model)}
    )
    metric = case.accuracy_metric
    assert metric is not None
    run.add(case, [{metric: value, "macs": macs} for value in top1])


# ---------------------------------------------------------------- what is covered


def test_every_claim_has_a_check_for_each_of_its_grounds() -> None:
    assert {claim.id: set(claim.grounds) for claim in CLAIMS} == {
        name: set(checks) for name, checks in CHECKS.items()
    }
    assert len(CHECKS) == 21


def test_every_claim_has_a_verdict_and_a_reason_without_any_measurement() -> None:
    for item in judge():
        assert item.verdict in VERDICTS
        assert all(part.why for part in item.parts)


def test_without_measurements_what_speaks_of_accuracy_or_time_is_not_reproduced() -> (
    None
):
    reproduced = {item.claim.id for item in judge() if item.verdict == "reproduced"}
    assert reproduced == {"C1", "C2", "C4", "C5", "C7", "C11", "C15"}


def test_every_metric_of_a_claim_has_words() -> None:
    assert set(WORDS) == set(get_args(ClaimedMetric))


def test_suites_that_are_named_exist_with_their_scales() -> None:
    suites = builtin_suites()
    whys = " ".join(part.why for item in judge() for part in item.parts)
    commands = set(re.findall(r"tlbench run (\w+)(?: --scale (\w+))?", whys))
    assert commands
    for name, scale in commands:
        assert name in suites
        assert not scale or scale in suites[name].scales


# ---------------------------------------------------------------- counted


def test_tokens_are_those_of_the_patches() -> None:
    found = judged()
    assert [n.own for n in part(found["C1"], "exact").numbers] == [
        (size // 16) ** 2 for size in (512, 224, 384)
    ]
    assert [n.own for n in part(found["C2"], "exact").numbers] == [
        32 // 2 * (size // 16) ** 2 for size in (224, 512)
    ]
    assert [n.own for n in part(found["C15"], "exact").numbers] == [16 * 8, 16 * 16]


def test_ratios_of_compute_are_those_of_the_papers_formulas_by_hand() -> None:
    """Blocks cost 12 N D^2 + 2 N^2 D, v1 9NDS + 27NS^2 + NSD, the patches N 768 D."""
    n, d = 196, 768

    def block(tokens: int) -> int:
        return 12 * tokens * d**2 + 2 * tokens**2 * d

    def total(place: int, s: int) -> int:
        learner = n * (9 * d * s + 27 * s * s + s * d)
        return n * 768 * d + place * block(n) + (12 - place) * block(s) + learner

    base = n * 768 * d + 12 * block(n)
    found = judged()
    for name, place in (("C9", 3), ("C10", 9), ("C12", 6)):
        numbers = part(found[name], "exact").numbers
        for number, s in zip(numbers, (8, 16), strict=False):
            assert number.own == pytest.approx(total(place, s) / base, rel=5e-3)
    (of_blocks, share) = part(found["C11"], "exact").numbers
    assert of_blocks.own == pytest.approx(block(n) / block(8))
    assert share.own == pytest.approx(6 * block(8) / total(6, 8), rel=2e-2)


def test_compute_that_does_not_rise_with_the_place_contradicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlbench.reports.claims import counted

    (rising,) = (
        n for n in part(judged()["C8"], "exact").numbers if "place before" in n.what
    )
    assert (rising.own, rising.note) == (6, "of 6, counted")  # 4 places, twice
    monkeypatch.setattr(counted, "_gflops", lambda spec: 1.0)
    found = part(judged()["C8"], "exact")
    assert found.verdict == "contradicted"


def test_the_bounds_in_the_words_of_a_check_are_those_that_judge() -> None:
    checks = {claim.id: claim.check for claim in CLAIMS}
    assert f"at most {HALF:.2f}" in checks["C12"]
    assert f"fewer than {-ROUNDS_TO_NO_LOSS}" in checks["C12"]
    assert f"fewer than {-ROUNDS_TO_NO_LOSS}" in checks["C13"]
    assert f"above {MOSTLY_SQUARE}" in checks["C3"]
    published = {
        parse_model(n.model).token_learner.num_tokens: -n.value  # type: ignore[union-attr]
        for claim in CLAIMS
        if claim.id == "C9"
        for n in claim.numbers
        if n.metric == "five_shot_points" and n.model
    }
    assert f"fewer than {-ALMOST_NO_LOSS}" in checks["C9"]
    assert f"{published[16]} with 16, {published[8]} with 8" in checks["C9"]


def test_ratio_of_parameters_is_that_of_models_that_are_built() -> None:
    def parameters(name: str) -> int:
        with torch.device("meta"):
            model = build_model(parse_model(name), 1000)
        return sum(parameter.numel() for parameter in model.parameters())

    numbers = part(judged()["C14"], "exact").numbers
    shown = [n.own for n in numbers if "1,000 classes" in n.what]
    base = parameters("ViT-G/14@518")
    assert shown == pytest.approx(
        [parameters(f"ViT-L/{patch}[35]@512+TL16v1@18") / base for patch in (10, 8)]
    )


def test_the_share_of_the_square_is_that_of_the_caveat() -> None:
    numbers = {n.what: n.own for n in part(judged()["C3"], "exact").numbers}
    by_hand = {196: 196 / (6 * 768 + 196), 1024: 1024 / (6 * 768 + 1024)}
    for tokens, share in by_hand.items():
        what = f"share of the square at {tokens:,} tokens in the blocks of ViT-B/16"
        assert numbers[what] == pytest.approx(share)


def test_a_claimed_number_that_is_not_counted_contradicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlbench.reports.claims import counted

    monkeypatch.setitem(counted.COUNTERS, "tokens", lambda number: 1023)
    counted.counted_numbers.cache_clear()
    try:
        assert judged()["C1"].verdict == "contradicted"
    finally:
        counted.counted_numbers.cache_clear()


@pytest.mark.parametrize("name", ["ViT-Ti/16[6]@64", "ViViT-Ti/16x2[6]@32x4"])
def test_token_learner_builds_and_runs_before_every_block(name: str) -> None:
    """What C7 counts, on models that are built."""
    plain = parse_model(name)
    for place in range(plain.depth):
        spec = parse_model(f"{name}+TL8v1@{place}")
        with torch.device("meta"):
            model = build_model(spec, 10)
            seen = _lengths(model, spec)
        behind = 8 * plain.time_steps
        expected = [plain.num_patches] * place + [behind] * (plain.depth - place)
        assert seen == expected


def _lengths(model: nn.Module, spec: ModelSpec) -> list[int]:
    """Tokens that enter each block while one sample runs through."""
    lengths: list[int] = []
    for index in range(spec.depth):
        block = model.get_submodule(f"blocks.{index}")
        block.register_forward_pre_hook(
            lambda _, inputs: lengths.append(inputs[0].shape[1])
        )
    with torch.inference_mode():
        model(torch.empty(1, *spec.sample_shape))
    return lengths


def test_the_built_module_learns_with_all_its_weights_as_the_formulas_say() -> None:
    """What C4 finds in NumPy, by the gradients of torch."""
    torch.manual_seed(0)
    module = TokenLearner(16, 8, (4, 4))
    tokens = module(torch.randn(1, 16, 16))
    tokens.square().sum().backward()
    assert tokens.shape == (1, 8, 16)
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_the_built_module_of_v11_weighs_with_a_sum_of_one() -> None:
    """What C5 finds in NumPy: equal positions come out as they are."""
    position = torch.randn(1, 1, 16)
    tokens = TokenLearnerV11(16, 8)(position.expand(1, 25, 16))
    torch.testing.assert_close(tokens, position.expand(1, 8, 16))


# ---------------------------------------------------------------- measured


def test_faster_at_three_quarters_is_reproduced_beyond_the_noise(
    run: RunBuilder,
) -> None:
    timed(run, "ViT-B/16", (100.0, 104.0, 98.0))
    timed(run, "ViT-B/16+TL8v1@9", (129.0, 136.0, 127.0))
    (number,) = part(judged(run)["C10"], "measured").numbers
    assert number.stand == "for"
    ratios = (1.29, 136 / 104, 127 / 98)
    assert min(ratios) < (number.own or 0) < max(ratios)
    assert part(judged(run)["C10"], "measured").verdict == "reproduced"


def test_slower_at_three_quarters_is_contradicted(run: RunBuilder) -> None:
    timed(run, "ViT-B/16", (100.0, 104.0, 98.0))
    timed(run, "ViT-B/16+TL8v1@9", (90.0, 94.0, 88.0))
    found = judged(run)["C10"]
    assert found.verdict == "contradicted"
    assert "ViT-B/16+TL8v1@9 over ViT-B/16" in part(found, "measured").why
    assert found.proxy is None


def test_faster_by_less_than_the_noise_is_not_settled(run: RunBuilder) -> None:
    timed(run, "ViT-B/16", (100.0, 104.0, 98.0))
    timed(run, "ViT-B/16+TL8v1@9", (100.4, 104.42, 98.39))
    (number,) = part(judged(run)["C10"], "measured").numbers
    assert number.interval is not None
    assert 1 < number.interval[0] < number.interval[1] < 1.01
    assert number.stand == "open"


def test_a_wide_interval_is_not_settled_and_says_what_would_settle_it(
    run: RunBuilder,
) -> None:
    timed(run, "ViT-B/16", (100.0, 150.0, 90.0))
    timed(run, "ViT-B/16+TL8v1@9", (130.0, 110.0, 140.0))
    found = part(judged(run)["C10"], "measured")
    assert found.verdict == "not measured"
    assert found.why.startswith("not settled")
    assert "more trials of both would settle it" in found.why


def test_one_trial_a_side_settles_nothing(run: RunBuilder) -> None:
    timed(run, "ViT-B/16", (100.0,))
    timed(run, "ViT-B/16+TL8v1@9", (130.0,))
    found = part(judged(run)["C10"], "measured")
    assert found.verdict == "not measured"
    assert "one trial gives no interval" in found.why


def test_the_claims_own_model_is_taken_before_others(run: RunBuilder) -> None:
    timed(run, "ViT-Ti/16", (100.0, 101.0))
    timed(run, "ViT-Ti/16+TL8v1@9", (90.0, 91.0))
    timed(run, "ViT-B/16", (10.0, 10.1))
    timed(run, "ViT-B/16+TL8v1@9", (13.0, 13.1))
    (number,) = part(judged(run)["C10"], "measured").numbers
    assert "ViT-B/16+TL8v1@9 over ViT-B/16" in number.what


def test_all_that_are_equally_near_count_whatever_came_out(run: RunBuilder) -> None:
    for model, speed in (("Ti", 1.3), ("S", 0.9)):
        timed(run, f"ViT-{model}/16", (100.0, 101.0, 102.0))
        faster = tuple(speed * t for t in (100.0, 101.0, 102.2))
        timed(run, f"ViT-{model}/16+TL8v1@9", faster)
    found = part(judged(run)["C10"], "measured")
    assert [number.stand for number in found.numbers] == ["for", "against"]
    assert "against it, 1 of 2" in found.why


def test_half_of_the_training_memory_decides_whatever_the_time(
    run: RunBuilder,
) -> None:
    timed(run, "ViT-B/16", (100.0, 101.0, 102.0), memory=2 * HALF_GIB, mode="train")
    timed(run, "ViT-B/16+TL8v1@6", (90.0, 91.0, 93.0), memory=HALF_GIB, mode="train")
    found = part(judged(run)["C12"], "measured")
    assert [number.stand for number in found.numbers] == ["for", None]
    assert found.verdict == "reproduced"


def test_memory_of_inference_that_stays_is_shown_and_decides_nothing(
    run: RunBuilder,
) -> None:
    timed(run, "ViT-B/16", (100.0, 101.0, 102.0), memory=HALF_GIB)
    timed(run, "ViT-B/16+TL8v1@6", (190.0, 192.0, 194.0), memory=HALF_GIB)
    found = part(judged(run)["C12"], "measured")
    assert found.verdict == "not measured"
    assert {number.stand for number in found.numbers} == {None}
    assert "in inference the peak is that of a block before" in found.numbers[1].note
    for model, memory in (("ViT-B/16", 20.0), ("ViT-B/16+TL8v1@6", 10.5)):
        timed(run, model, (9.0, 9.1), memory=memory * HALF_GIB, mode="train")
    assert part(judged(run)["C12"], "measured").verdict == "reproduced"


@pytest.mark.parametrize(
    ("gib", "verdict"), [(8.0, "contradicted"), (0.7, "not measured")]
)
def test_training_memory_that_stays_contradicts_unless_gradients_may_hide_it(
    run: RunBuilder, gib: float, verdict: Verdict
) -> None:
    """Two times 86.6 M gradients of 4 bytes are 0.65 GiB."""
    for model in ("ViT-B/16", "ViT-B/16+TL8v1@6"):
        timed(run, model, (9.0, 9.1, 9.2), memory=gib * 2**30, mode="train")
    found = part(judged(run)["C12"], "measured")
    assert found.verdict == verdict
    assert ("a larger batch would settle it" in found.why) == (gib < 1)


def test_weights_and_optimiser_states_on_a_device_are_not_held_against_it(
    run: RunBuilder,
) -> None:
    """B/16 in bf16 has 1.13 GiB of them at 14 bytes a parameter."""
    for model, activations in (("ViT-B/16", 4.0), ("ViT-B/16+TL8v1@6", 2.0)):
        settings = {"mode": "train", "precision": "bf16", "device": "cuda"}
        case = Case.model_validate({**settings, "model": parse_model(model)})
        peak = 14 * 86_566_120 + activations * 2**30
        memory = {"peak_memory_allocated_bytes": peak}
        run.add(case, [{"throughput_samples_per_s": 9.0, **memory}] * 2)
    number = part(judged(run)["C12"], "measured").numbers[0]
    assert number.own == pytest.approx(0.5, rel=1e-3)


def test_memory_at_the_largest_batch_says_nothing_of_half(run: RunBuilder) -> None:
    for model in ("ViT-B/16", "ViT-B/16+TL8v1@6"):
        timed(
            run,
            model,
            (9.0, 9.1, 9.2),
            memory=20 * HALF_GIB,
            mode="train",
            batch_size="max",
        )
    found = part(judged(run)["C12"], "measured")
    assert found.verdict == "not measured"
    assert "at one batch size" in found.why


def test_growth_is_the_power_of_the_tokens(run: RunBuilder) -> None:
    """Four times the tokens at a tenth of the speed: log 10 / log 4."""
    timed(run, "ViT-Ti/16", (100.0, 101.0))
    timed(run, "ViT-Ti/16@448", (10.0, 10.1))
    found = part(judged(run)["C3"], "measured")
    (number,) = found.numbers
    assert number.own == pytest.approx(1.660964)
    assert found.verdict == "reproduced"


@pytest.mark.parametrize(
    ("speeds", "verdict"),
    [((20.0, 20.2, 19.9), "not measured"), ((30.0, 30.3, 29.8), "contradicted")],
)
def test_growth_below_the_square_is_open_and_without_any_excluded(
    run: RunBuilder, speeds: Sequence[float], verdict: Verdict
) -> None:
    timed(run, "ViT-Ti/16", (100.0, 101.0, 99.0))
    timed(run, "ViT-Ti/16@448", speeds)
    found = part(judged(run)["C3"], "measured")
    assert found.verdict == verdict
    if verdict == "not measured":  # 2 * 192 + 768 tokens
        assert "beyond 1,152 tokens" in found.why


# ---------------------------------------------------------------- by proxy


def test_a_gain_on_digits_is_one_by_proxy_beside_the_published(
    run: RunBuilder,
) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@9", (92.0, 92.5, 92.1))
    found = part(judged(run)["C10"], "proxy")
    (number,) = found.numbers
    assert number.published == 5.0
    assert number.own == pytest.approx(2.0)
    assert (found.verdict, found.proxy) == ("reproduced", "digits")


def test_almost_the_accuracy_is_within_what_16_tokens_lose(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL16v1@3", (89.2, 89.5, 89.4))
    trained(run, "ViT-Ti/4@28+TL8v1@3", (86.0, 86.5, 86.2))
    found = part(judged(run)["C9"], "proxy")
    assert {n.published: n.stand for n in found.numbers} == {
        -1.5: "for",
        -4.1: "open",
    }
    assert judged(run)["C9"].verdict == "not measured"


@pytest.mark.parametrize(
    ("tokens", "lost", "stand"),
    [
        (16, 1.0, "for"),
        (16, 1.5, "open"),
        (16, 3.0, "against"),
        (8, 1.0, "for"),
        (8, 4.1, "open"),
        (8, 5.0, "against"),
        (9, 3.0, "against"),
    ],
)
def test_only_a_loss_beyond_the_published_contradicts_almost(
    run: RunBuilder, tokens: int, lost: float, stand: Stand
) -> None:
    base = (90.0, 90.4, 90.2)
    learned = [base[0] - lost, base[1] - lost + 0.1, base[2] - lost - 0.1]
    trained(run, "ViT-Ti/4@28", base)
    trained(run, f"ViT-Ti/4@28+TL{tokens}v1@3", learned)
    (number,) = part(judged(run)["C9"], "proxy").numbers
    assert number.stand == stand


def test_the_published_points_stand_where_nothing_was_trained() -> None:
    assert published_text(part(judged()["C9"], "proxy")) == f"{MINUS}4.1; {MINUS}1.5"


def test_place_is_judged_from_the_earliest_to_the_latest(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28+TL8v1@0", (60.0, 61.0, 60.5))
    trained(run, "ViT-Ti/4@28+TL8v1@3", (99.0, 20.0, 50.0))
    trained(run, "ViT-Ti/4@28+TL8v1@9", (90.0, 91.2, 90.6))
    found = part(judged(run)["C8"], "proxy")
    (number,) = found.numbers
    assert number.own == pytest.approx((30 + 30.2 + 30.1) / 3)
    assert found.verdict == "reproduced"


def test_a_cheaper_plain_model_that_is_better_spoils_the_trade(
    run: RunBuilder,
) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2), macs=4e9)
    trained(run, "ViT-Ti/4@28+TL8v1@6", (85.0, 85.5, 85.2), macs=2e9)
    assert part(judged(run)["C13"], "proxy").verdict == "not measured"
    trained(run, "ViT-Ti/4[5]@28", (88.0, 88.3, 88.2), macs=1.9e9)
    assert part(judged(run)["C13"], "proxy").verdict == "contradicted"


def test_a_trade_at_one_of_the_two_places_alone_is_not_reproduced(
    run: RunBuilder,
) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (92.0, 92.5, 92.1))
    found = part(judged(run)["C13"], "proxy")
    assert found.verdict == "not measured"
    assert "no model with TokenLearner at 3/4" in found.why
    trained(run, "ViT-Ti/4@28+TL8v1@9", (92.0, 92.5, 92.1))
    assert part(judged(run)["C13"], "proxy").verdict == "reproduced"


def test_adaptivity_is_never_concluded_from_accuracy_alone(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL9v1@6", (95.0, 95.5, 95.2))
    trained(run, "ViT-Ti/4@28+pool2@6", (80.0, 80.5, 80.2))
    trained(run, "ViT-Ti/4@28+random(keep=9,place=6)", (70.0, 70.5, 70.2))
    trained(run, "ViT-Ti/4@28+stride(step=3,place=6)", (75.0, 75.5, 75.2))
    trained(run, "ViT-Ti/4@28+random(keep=4,place=6)", (10.0, 10.5, 10.2))
    found = part(judged(run)["C6"], "proxy")
    assert found.verdict == "not measured"
    assert [n.own for n in found.numbers] == pytest.approx([15.0, 25.0, 20.0])


def looked_at(
    run: RunBuilder, metric: str, values: Iterable[float], data: str = "digits"
) -> None:
    name = "ViT-Ti/4@28+TL8v1@6"
    spec = parse_model(name if data == "digits" else "ViViT-Ti/4x2@32+TL8v1@6")
    case = Case.model_validate({"mode": "fit", "data": data, "model": spec})
    run.add(case, [{metric: value} for value in values])


@pytest.mark.parametrize(
    ("variations", "verdict"),
    [
        ((0.30, 0.32, 0.31), "reproduced, by proxy on digits"),
        ((0.02, 0.03, 0.02), "contradicted, by proxy on digits"),
        ((0.02, 0.30, 0.12), "not measured, by proxy on digits"),
        ((0.30,), "not measured, by proxy on digits"),
    ],
)
def test_adaptivity_is_judged_by_how_maps_vary_over_inputs(
    run: RunBuilder, variations: tuple[float, ...], verdict: str
) -> None:
    looked_at(run, "map_variation", variations)
    assert part(judged(run)["C6"], "proxy").verdict_words == verdict


def test_how_far_maps_vary_has_the_interval_of_student(run: RunBuilder) -> None:
    values = (0.30, 0.32, 0.37)
    looked_at(run, "map_variation", values)
    (number,) = part(judged(run)["C6"], "proxy").numbers
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert number.interval == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.8, 0.82, 0.81), "reproduced"),
        ((0.1, 0.12, 0.11), "contradicted"),
        ((-0.1, 0.9, 0.5), "not measured"),
    ],
)
def test_following_is_judged_by_how_far_the_nearest_map_goes(
    run: RunBuilder, gains: tuple[float, ...], verdict: str
) -> None:
    looked_at(run, "map_gain_best", gains, "moving-digits")
    assert part(judged(run)["C18"], "proxy").verdict == verdict


def test_a_gain_on_images_leaves_the_claim_on_video_open(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (92.0, 92.5, 92.1))
    found = judged(run)["C20"]
    assert found.verdict == "not measured"
    assert "On video" in part(found, "proxy").why


CLIPS = "ViViT-Ti/4x2@32"


def test_a_loss_on_images_says_nothing_of_video(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (80.0, 80.5, 80.1))
    found = part(judged(run)["C16"], "proxy")
    assert found.verdict == "not measured"
    assert "no ViViT with TokenLearner at 1/2 or 3/4" in found.why


@pytest.mark.parametrize(
    ("top1", "verdict"),
    [
        ((72.0, 72.5, 72.1), "reproduced, by proxy on moving-digits"),
        ((60.0, 60.5, 60.1), "contradicted, by proxy on moving-digits"),
        ((60.0, 80.0, 70.0), "not measured, by proxy on moving-digits"),
    ],
)
def test_accuracy_on_clips_is_judged_by_clips_alone(
    run: RunBuilder, top1: tuple[float, ...], verdict: str
) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (90.1, 90.3, 90.2))
    trained(run, CLIPS, (70.0, 70.4, 70.2), data="moving-digits")
    trained(run, f"{CLIPS}+TL8v1@6", top1, data="moving-digits")
    found = judged(run)
    assert part(found["C16"], "proxy").verdict_words == verdict
    places = [number.what for number in part(found["C12"], "proxy").numbers]
    assert all(" on digits" in what for what in places)
    assert len(places) == 1


def test_a_gain_on_images_and_clips_reproduces_that_of_both(run: RunBuilder) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (92.0, 92.5, 92.1))
    trained(run, CLIPS, (70.0, 70.4, 70.2), data="moving-digits")
    trained(run, f"{CLIPS}+TL8v1@6", (72.0, 72.5, 72.1), data="moving-digits")
    found = part(judged(run)["C20"], "proxy")
    assert found.verdict_words == "reproduced, by proxy on digits and moving-digits"
    gains = [number.own for number in found.numbers]
    assert gains == pytest.approx([2.0, 2.0], abs=0.1)


def test_clips_of_several_labels_are_judged_by_their_average_precision(
    run: RunBuilder,
) -> None:
    clips = "ViViT-Ti/16x2"
    for name, values in ((clips, (20.0, 20.4)), (f"{clips}+TL8v1@6", (22.0, 22.5))):
        trained(run, name, values, data="charades")
    (number,) = part(judged(run)["C16"], "proxy").numbers
    assert number.what.startswith("mAP points of ViViT-Ti/16x2+TL8v1@6")
    assert number.own == pytest.approx(2.05)


def test_probes_of_random_weights_decide_no_claim(run: RunBuilder) -> None:
    for name, values in (("ViT-Ti/4@28", (40.0, 41.0)), ("ViT-Ti/4@28+TL8@6", (9, 8))):
        trained(run, name, values, mode="fewshot")
    assert part(judged(run)["C12"], "proxy").numbers == ()


def test_all_tokens_are_needed_only_if_no_place_is_without_loss(
    run: RunBuilder,
) -> None:
    trained(run, "ViT-Ti/4@28", (90.0, 90.4, 90.2))
    trained(run, "ViT-Ti/4@28+TL8v1@6", (80.0, 80.5, 80.2))
    assert judged(run)["C19"].verdict == "not measured"
    trained(run, "ViT-Ti/4@28+TL8v1@9", (80.0, 80.6, 80.1))
    found = judged(run)["C19"]
    assert found.verdict_words == "contradicted, by proxy on digits"
    assert "C12 contradicted, by proxy on digits" in part(found, "proxy").why


# ---------------------------------------------------------------- rules and tables


@pytest.mark.parametrize(
    ("interval", "stand"),
    [
        ((1.1, 1.2), "for"),
        ((0.8, 0.9), "against"),
        ((0.9, 1.1), "open"),
        (None, "open"),
    ],
)
def test_only_a_whole_interval_decides(
    interval: tuple[float, float] | None, stand: Stand
) -> None:
    assert above(interval, 1.0) == stand
    mirrored = None if interval is None else (2 - interval[1], 2 - interval[0])
    assert below(mirrored, 1.0) == stand


def test_the_weakest_ground_gives_the_verdict() -> None:
    claim = next(claim for claim in CLAIMS if claim.id == "C10")

    def verdict(*verdicts: Verdict) -> Verdict:
        parts = tuple(Part("exact", v, "because") for v in verdicts)
        return JudgedClaim(claim, parts).verdict

    assert verdict("reproduced", "reproduced") == "reproduced"
    assert verdict("reproduced", "quoted only") == "quoted only"
    assert verdict("quoted only", "not measured") == "not measured"
    assert verdict("not measured", "contradicted") == "contradicted"


def test_a_number_that_is_only_shown_decides_nothing() -> None:
    shown = Number("beside it", own=1.0)
    assert conclude("exact", [shown], agreed="so it is").verdict == "reproduced"
    part = conclude("exact", [shown], agreed="so it is", missing="the rest")
    assert (part.verdict, part.why) == ("not measured", "the rest")


def test_the_table_has_a_row_for_each_ground_with_words_for_the_verdicts() -> None:
    table = claims_table(judge())
    assert len(table.rows) == sum(len(claim.grounds) for claim in CLAIMS)
    for row in table.rows:
        of_ground, _, _ = row.cells[2].detail.partition(",")
        assert {row.cells[1].text, of_ground} <= set(VERDICTS)
    caveats = [row.cells[-1].detail for row in table.rows if row.cells[-1].detail]
    assert len(caveats) == sum(claim.caveat is not None for claim in CLAIMS)


def test_what_is_not_shown_is_counted(run: RunBuilder) -> None:
    for batch_size in range(1, 13):
        timed(run, "ViT-B/16", (100.0, 101.0), batch_size=batch_size)
        timed(run, "ViT-B/16+TL8v1@9", (130.0, 131.0), batch_size=batch_size)
    rows = claims_table(tuple(judged(run).values())).rows
    cells = [row.cells for row in rows if row.cells[0].text == "C10"]
    (here,) = (row[4] for row in cells if row[2].text == "measured")
    assert here.text.endswith("; and 9 more")
    assert here.hint.endswith("; and 2 more in the data")


def test_the_sentence_counts_every_claim_once(smoke: RunBuilder) -> None:
    found = tuple(judged(smoke).values())
    words = summary_sentence(found).removeprefix("Of 21 claims: ")
    numbers = [int(item.split()[0]) for item in words.split(", ")]
    assert sum(numbers) == 21


def test_json_has_every_number_of_the_table(smoke: RunBuilder) -> None:
    found = tuple(judged(smoke).values())
    for item, record in zip(found, describe(found), strict=True):
        assert record["verdict"] == item.verdict
        own = [n["here"] for ground in record["grounds"] for n in ground["numbers"]]
        assert own == [n.own for part in item.parts for n in part.numbers]
