"""Every claim with its checks, and the verdicts that come of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tlbench.reports.cases import CaseTrials
from tlbench.reports.claims import counted, formulas, measured, trained
from tlbench.reports.claims.material import Material
from tlbench.reports.claims.records import JudgedClaim, Number, Part
from tlbench.reports.compare import Comparison
from tlbench.suites.published import CLAIMS, Claim, Ground

Check = Callable[[Claim, Material], Part]


def judge(
    cases: Sequence[CaseTrials] = (), compared: Sequence[Comparison] = ()
) -> tuple[JudgedClaim, ...]:
    """A verdict on every claim, in the order of the publication.

    Without any measurement, only what is counted or quoted has one.
    """
    judged: dict[str, JudgedClaim] = {}
    for claim in CLAIMS:
        material = Material(cases, compared, judged)
        judged[claim.id] = _judge_one(claim, material)
    return tuple(judged.values())


def _judge_one(claim: Claim, material: Material) -> JudgedClaim:
    checks = CHECKS[claim.id]
    parts = tuple(checks[ground](claim, material) for ground in claim.grounds)
    return JudgedClaim(claim, parts)


def _quote(claim: Claim, _: Material) -> Part:
    """The numbers that no measurement here can stand beside."""
    numbers = tuple(
        Number(
            counted.describe(number),
            number.value,
            unit="points" if number.metric.endswith("_points") else "",
        )
        for number in claim.numbers
        if number.metric not in counted.COUNTERS
    )
    return Part("quoted", "quoted only", _WHY_QUOTED, numbers)


_WHY_QUOTED = "needs JFT-300M or the state of the field then, neither of which is here"


def _counted(check: Callable[[Claim], Part]) -> Check:
    """A check that needs no measurement."""
    return partial(_without_material, check)


def _without_material(
    check: Callable[[Claim], Part], claim: Claim, _: Material
) -> Part:
    return check(claim)


CHECKS: Mapping[str, Mapping[Ground, Check]] = {
    "C1": {"exact": _counted(counted.count)},
    "C2": {"exact": _counted(counted.count)},
    "C3": {
        "exact": _counted(counted.square_of_tokens),
        "measured": measured.grows_with_square,
    },
    "C4": {"exact": _counted(formulas.maps_and_pooling)},
    "C5": {"exact": _counted(formulas.soft_selection)},
    "C6": {"proxy": trained.tokens_adapt},
    "C7": {"exact": _counted(counted.at_any_place)},
    "C8": {
        "exact": _counted(counted.compute_by_place),
        "proxy": trained.place_costs_accuracy,
    },
    "C9": {
        "exact": _counted(counted.under_a_third),
        "proxy": trained.almost_as_accurate,
    },
    "C10": {
        "exact": _counted(counted.count),
        "proxy": trained.more_accurate,
        "measured": measured.faster,
    },
    "C11": {"exact": _counted(counted.count)},
    "C12": {
        "exact": _counted(counted.about_half),
        "measured": measured.saves_half,
        "proxy": trained.no_loss,
    },
    "C13": {"proxy": trained.better_trade},
    "C14": {"exact": _counted(counted.fewer_params), "quoted": _quote},
    "C15": {"exact": _counted(counted.count)},
    "C16": {"exact": _counted(counted.count), "proxy": trained.better_on_video},
    "C17": {"quoted": _quote},
    "C18": {"proxy": trained.maps_follow},
    "C19": {"proxy": trained.not_all_tokens_needed},
    "C20": {"proxy": trained.gains_by_adapting},
    "C21": {"exact": _counted(counted.code_is_public)},
}
"""How each ground of each claim is checked."""
