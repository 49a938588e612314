"""Claims about accuracy, by training on small data in the place of JFT-300M."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from tlbench.reports.cases import CaseTrials, has_trained_weights
from tlbench.reports.claims.counted import describe
from tlbench.reports.claims.material import (
    HALFWAY,
    QUARTER,
    THREE_QUARTERS,
    Material,
    is_plain,
    nearest,
    relative_place,
)
from tlbench.reports.claims.measured import describe_case
from tlbench.reports.claims.records import (
    JudgedClaim,
    Number,
    Part,
    Verdict,
    above,
    conclude,
)
from tlbench.reports.compare import Comparison, differences
from tlbench.reports.findings import ROUNDS_TO_NONE, describe_evidence, signed
from tlbench.reports.quantities import MAPS, QUANTITIES
from tlbench.statistics import Difference, compare_difference
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.published import Claim
from tlbench.units import format_number

ROUNDS_TO_NO_LOSS = -ROUNDS_TO_NONE
ALMOST_NO_LOSS = -1.5
"""Points that the publication's 16 tokens lose at 1/4, and the most that it calls
almost the accuracy of the base."""
POINTS = ("five_shot_points",)
"""The claimed numbers that an accuracy here stands beside."""

PLACEMENT_COMMAND = "tlbench run placement --scale cpu"
VIDEO_COMMAND = "tlbench run proxy"
POOLING_COMMAND = "tlbench run pooling --scale cpu"
ADAPTS = 0.1
"""Share of a map's weight that has to lie elsewhere for another input."""
FOLLOWS = 0.5
"""Share of the object's way that the centre of a map has to go with it."""
NO_VIDEO = (
    "no ViViT with TokenLearner at 1/2 or 3/4 was trained beside the same model without"
    f" it; {VIDEO_COMMAND} does that, on clips of digits that move"
)
NO_MAPS = "no trained model with TokenLearner has its attention maps here"

TOGETHER = ("C8", "C9", "C10", "C11", "C12")
WITHOUT_LOSS = ("C10", "C12")
"""Those that say that nothing is lost at some place: one of them would be enough."""


# ---------------------------------------------------------------- gains and losses


def almost_as_accurate(claim: Claim, material: Material) -> Part:
    compared = material.trained(QUARTER)
    agreed = f"at 1/4, less than {-ALMOST_NO_LOSS} points are lost"
    return _against_base(claim, compared, ALMOST_NO_LOSS, agreed, "1/4")


def more_accurate(claim: Claim, material: Material) -> Part:
    compared = material.trained(THREE_QUARTERS)
    return _against_base(claim, compared, 0.0, "at 3/4, accuracy is gained", "3/4")


def no_loss(claim: Claim, material: Material) -> Part:
    agreed = f"at 1/2, less than {-ROUNDS_TO_NO_LOSS} points are lost"
    compared = material.trained(HALFWAY)
    return _against_base(claim, compared, ROUNDS_TO_NO_LOSS, agreed, "1/2")


def _against_base(
    claim: Claim,
    compared: Sequence[Comparison],
    bound: float,
    agreed: str,
    place: str,
) -> Part:
    chosen = nearest(compared, claim)
    if not chosen:
        return Part("proxy", "not measured", _not_trained(place), _claimed(claim))
    numbers = [_as_published(_gain(comparison, bound, claim)) for comparison in chosen]
    return conclude("proxy", numbers, agreed=agreed, proxy=_data(chosen))


def _as_published(number: Number) -> Number:
    """Open where the interval allows the loss that is published for as many tokens."""
    if number.stand != "against" or number.published is None:
        return number
    if above(number.interval, number.published) == "against":
        return number
    published = signed(number.published)
    note = f"{number.note}; it may be no more than the published {published} points"
    return replace(number, stand="open", note=note)


def _not_trained(place: str) -> str:
    return (
        f"no model with TokenLearner at {place} was trained beside the same model"
        f" without it; {PLACEMENT_COMMAND} does that, on handwritten digits"
    )


def _claimed(claim: Claim) -> tuple[Number, ...]:
    """The published points, where there is nothing of one's own beside them."""
    return tuple(
        Number(describe(number), number.value, unit="points")
        for number in claim.numbers
        if number.metric in POINTS
    )


def _gain(comparison: Comparison, bound: float, claim: Claim | None = None) -> Number:
    """The points that the other side gains, and whether they lie above a bound."""
    base, other = comparison.base, comparison.other
    difference = comparison.accuracy
    measure = QUANTITIES[comparison.accuracy_metric].title
    return Number(
        f"{measure} points of {other.model} over {base.model} on {other.case.data},"
        f" {describe_case(other)}",
        None if claim is None else _published_points(claim, other.case.model),
        difference.value,
        difference.interval,
        above(difference.interval, bound),
        _evidence(difference, bound),
        unit="points",
    )


def _evidence(difference: Difference, bound: float) -> str:
    gained = "no trial" if difference.value is None else signed(difference.value)
    needs = f"more than {signed(bound)}" if bound else "a gain"
    note = f"{gained} points ({describe_evidence(difference)}), and {needs} is needed"
    if above(difference.interval, bound) == "open":
        note += "; more repeats of both would settle it"
    return note


def _published_points(claim: Claim, spec: ModelSpec) -> float | None:
    """Of the claim's model that has as many learned tokens."""
    assert spec.token_learner is not None
    for number in claim.numbers:
        if number.metric in POINTS and number.model is not None:
            learner = parse_model(number.model).token_learner
            if learner and learner.num_tokens == spec.token_learner.num_tokens:
                return number.value
    return None


def _data(compared: Sequence[Comparison]) -> str:
    """The data sets that were trained on, each once."""
    return _names([comparison.other for comparison in compared])


# ---------------------------------------------------------------- places, curves


def place_costs_accuracy(_: Claim, material: Material) -> Part:
    """Accuracy at the latest place over that at the earliest."""
    pairs = [Comparison(g[0], g[-1]) for g in _by_place(material)]
    if not pairs:
        missing = (
            "no model was trained with TokenLearner at two places;"
            f" {PLACEMENT_COMMAND} does that, on handwritten digits"
        )
        return Part("proxy", "not measured", missing)
    numbers = [_gain(pair, 0.0) for pair in pairs]
    agreed = "the later place is the more accurate one"
    return conclude("proxy", numbers, agreed=agreed, proxy=_data(pairs))


def _by_place(material: Material) -> Iterator[list[CaseTrials]]:
    """Trained cases that differ in the place of TokenLearner alone, earliest first."""
    for group in material.trained_alike(video=False):
        alike: dict[Hashable, list[CaseTrials]] = defaultdict(list)
        for case in group:
            learner = case.case.model.token_learner
            if learner is not None and case.accuracies:
                if relative_place(case.case.model) is None:
                    continue
                same = learner.model_copy(update={"place": 0})
                alike[case.case.model.plain, same].append(case)
        for cases in alike.values():
            if len(cases) > 1:
                yield sorted(cases, key=lambda c: relative_place(c.case.model) or 0)


def better_trade(claim: Claim, material: Material) -> Part:
    """At 1/2 and 3/4, against the baseline and every plain model as cheap."""
    at_place = {
        name: nearest(material.trained(place), claim)
        for name, place in (("1/2", HALFWAY), ("3/4", THREE_QUARTERS))
    }
    chosen = [comparison for found in at_place.values() for comparison in found]
    untrained = " or ".join(name for name, found in at_place.items() if not found)
    missing = _not_trained(untrained) if untrained else ""
    if not chosen:
        return Part("proxy", "not measured", missing)
    plain = [
        case
        for group in material.trained_alike(video=False)
        for case in group
        if is_plain(case.case.model) and case.accuracies
    ]
    numbers = [_trade(comparison, plain) for comparison in chosen]
    agreed = "at 1/2 and 3/4, nothing is lost beside a plain model of more compute"
    return conclude(
        "proxy", numbers, agreed=agreed, missing=missing, proxy=_data(chosen)
    )


def _trade(comparison: Comparison, plain: Sequence[CaseTrials]) -> Number:
    """Whether it loses nothing for its smaller cost, or a cheaper ViT is better.

    A loss against its baseline alone is open: less compute was to be had for it.
    """
    for cheaper in _no_dearer(comparison, plain):
        against = _gain(Comparison(cheaper, comparison.other), 0.0)
        if against.stand == "against":
            return against
    number = _gain(comparison, ROUNDS_TO_NO_LOSS)
    if number.stand != "against":
        return number
    note = f"{number.note}; a plain model of the same compute would settle it"
    return replace(number, stand="open", note=note)


def _no_dearer(
    comparison: Comparison, plain: Sequence[CaseTrials]
) -> Iterator[CaseTrials]:
    """Plain models at the same settings that need no more multiply-adds."""
    most = comparison.other.summary("macs").value
    for case in plain:
        macs = case.summary("macs").value
        if most is None or macs is None or macs > most:
            continue
        if not differences(case, comparison.other):
            yield case


# ---------------------------------------------------------------- opponents, video


def tokens_adapt(_: Claim, material: Material) -> Part:
    """How the maps vary over inputs; accuracies alone show no adaptivity."""
    looked = _with_maps(material, "map_variation")
    beside = [
        replace(_gain(pair, 0.0), stand=None) for pair in _against_unlearned(material)
    ]
    if not looked:
        shown = (
            "the accuracies beside unlearned ways to few tokens are shown, but"
            if beside
            else "no unlearned way to few tokens was trained beside it"
            f" ({POOLING_COMMAND} does that), and"
        )
        why = f"{shown} how the maps vary over inputs is not known: {NO_MAPS}"
        return Part("proxy", "not measured", why, tuple(beside))
    numbers = [_level(case, "map_variation", ADAPTS) for case in looked]
    agreed = (
        f"over {ADAPTS:.0%} of a map's weight lies elsewhere for another input; of a"
        " uniform split, none does"
    )
    proxy = _names(looked)
    return conclude("proxy", [*numbers, *beside], agreed=agreed, proxy=proxy)


def _with_maps(material: Material, metric: str) -> list[CaseTrials]:
    """Cases of trained models on real data whose maps have that number."""
    return [
        case
        for case in material.cases
        if has_trained_weights(case.case)
        and case.case.data_info.has_meaning
        and case.values(metric)
    ]


def _level(case: CaseTrials, metric: str, bound: float) -> Number:
    """Whether a number of the maps lies above a bound, over the trials."""
    values = case.values(metric)
    beyond = compare_difference(dict.fromkeys(values, bound), values).interval
    interval = beyond and (bound + beyond[0], bound + beyond[1])
    stand = above(interval, bound)
    note = f"more than {bound} is needed"
    if interval is not None:
        ends = " to ".join(format_number(end, digits=3) for end in interval)
        note = f"95 % interval {ends}, {len(values)} trials, and {note}"
    if stand == "open":
        note += "; more repeats would settle it"
    return Number(
        f"{MAPS[metric].title} of the maps of {case.model} on {case.case.data},"
        f" {describe_case(case)}",
        own=case.summary(metric).value,
        interval=interval,
        stand=stand,
        note=note,
    )


def _names(cases: Sequence[CaseTrials]) -> str:
    """The data sets of the cases, each once."""
    return " and ".join(dict.fromkeys(case.case.data for case in cases))


def gains_by_adapting(claim: Claim, material: Material) -> Part:
    """Gains over the baseline and over unlearned tokens, on images and on video."""
    late = HALFWAY, THREE_QUARTERS
    on_images = [
        *nearest(material.trained(*late), claim),
        *_against_unlearned(material, video=False),
    ]
    on_video = [
        *nearest(material.trained_on_video(*late), claim),
        *_against_unlearned(material, video=True),
    ]
    missing = []
    if not on_images:
        missing.append(f"On images: {_not_trained('1/2 or 3/4')}.")
    if not on_video:
        missing.append(f"On video, of which it says the most: {NO_VIDEO}.")
    pairs = on_images + on_video
    if not pairs:
        return Part("proxy", "not measured", " ".join(missing).rstrip("."))
    return conclude(
        "proxy",
        [_gain(pair, 0.0) for pair in pairs],
        agreed="accuracy is gained over the baseline and over unlearned tokens",
        missing=" ".join(missing).rstrip("."),
        proxy=_data(pairs),
    )


def _against_unlearned(
    material: Material, *, video: bool | None = None
) -> list[Comparison]:
    """TokenLearner against as many tokens at the same place that nothing learned.

    Args:
        material: What there is.
        video: Of clips alone, or of images alone; None: of both.
    """
    return [
        Comparison(unlearned, learned)
        for group in material.trained_alike(video=video)
        for unlearned in group
        for reduction in [_unlearned_reduction(unlearned.case.model)]
        if reduction is not None and unlearned.accuracies
        for learned in group
        if _learned_reduction(learned.case.model) == reduction
        if learned.case.model.plain == unlearned.case.model.plain
        if learned.accuracies
    ]


def _learned_reduction(spec: ModelSpec) -> tuple[int, int] | None:
    """Place and number of the learned tokens."""
    learner = spec.token_learner
    if learner is None or relative_place(spec) is None:
        return None
    return learner.place, learner.num_tokens


def _unlearned_reduction(spec: ModelSpec) -> tuple[int, int] | None:
    """Place and number of tokens of one pooling or dropping."""
    pool, builder = spec.grid_pool, spec.builder
    if pool is not None and len(pool.places) == 1 and builder is None:
        return pool.places[0], (spec.grid_size // pool.window) ** 2
    if pool is not None or builder is None or builder.file is not None:
        return None
    options = {name: int(value) for name, value in builder.options.items()}
    match builder.function:
        case "random":
            return options["place"], options["keep"]
        case "fixed":
            return options["place"], options["tokens"]
        case "stride":
            return options["place"], math.ceil(spec.grid_size / options["step"]) ** 2
        case _:
            return None


def better_on_video(claim: Claim, material: Material) -> Part:
    compared = material.trained_on_video(HALFWAY, THREE_QUARTERS)
    chosen = nearest(compared, claim)
    if not chosen:
        return Part("proxy", "not measured", NO_VIDEO, _claimed(claim))
    numbers = [_gain(comparison, 0.0) for comparison in chosen]
    agreed = "on clips, accuracy is gained"
    return conclude("proxy", numbers, agreed=agreed, proxy=_data(chosen))


def maps_follow(_: Claim, material: Material) -> Part:
    """Whether the nearest map goes along with an object whose place is known."""
    looked = _with_maps(material, "map_gain_best")
    if not looked:
        why = f"{NO_MAPS} for clips of which it is known where something moves"
        return Part("proxy", "not measured", why)
    numbers = [_level(case, "map_gain_best", FOLLOWS) for case in looked]
    agreed = f"the nearest map goes over {FOLLOWS:.0%} of the object's way, with it"
    return conclude("proxy", numbers, agreed=agreed, proxy=_names(looked))


# ---------------------------------------------------------------- together


def not_all_tokens_needed(_: Claim, material: Material) -> Part:
    """From the claims that it sums up.

    It takes one place without a loss: so only if none is left, it is contradicted.
    """
    judged = [material.judged[name] for name in TOGETHER]
    of = {item.claim.id: item.verdict for item in judged}
    verdict: Verdict = "not measured"
    if set(of.values()) == {"reproduced"}:
        verdict = "reproduced"
    elif {of[name] for name in WITHOUT_LOSS} == {"contradicted"}:
        verdict = "contradicted"
    why = "together: " + "; ".join(map(_told, judged))
    proxy = next((item.proxy for item in judged if item.proxy), None)
    return Part("proxy", verdict, why, proxy=proxy)


def _told(judged: JudgedClaim) -> str:
    return f"{judged.claim.id} {judged.verdict_words}"
