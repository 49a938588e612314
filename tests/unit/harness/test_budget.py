"""Where a budget of time goes: simulated runs with known spreads and durations."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from tlbench.budget import Budget, parse_budget
from tlbench.errors import TlbenchError
from tlbench.plan import order_trials
from tlbench.result import Metric, Status, TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.spec import MODES, Case, Suite, Trial

THROUGHPUT = "throughput_samples_per_s"


def case(model: str, mode: str = "infer", **settings: object) -> Case:
    fields = {"mode": mode, **settings, "model": parse_model(model)}
    return Case.model_validate(fields)


PLAIN = case("ViT-Ti/16")
CALM, WILD = case("ViT-Ti/16+TL8@6"), case("ViT-Ti/16+TL16@6")
ALONE = case("ViT-S/16")
PAIRS = [(PLAIN, CALM), (PLAIN, WILD)]
ALL_OOM: dict[Case, Status] = {PLAIN: "oom", ALONE: "oom"}


@dataclass
class Simulation:
    """A machine whose trials take a known time and scatter by a known share."""

    spreads: Mapping[Case, float]
    takes_s: Mapping[Case, float] = field(default_factory=dict)
    statuses: Mapping[Case, Status] = field(default_factory=dict)
    now: float = 1000.0
    ran: list[Trial] = field(default_factory=list)

    def run(
        self,
        budget_s: float,
        pairs: list[tuple[Case, Case]] = PAIRS,
        expected_s: Callable[[Case], float] = lambda case: 3.0,
        **suite: object,
    ) -> Budget:
        asked = Suite.model_validate(
            {
                "name": "simulated",
                "cases": tuple(self.spreads),
                "repeats": {c.mode: 1 for c in self.spreads},
                **suite,
            }
        )
        budget = Budget(
            asked,
            pairs,
            {c.identity: expected_s(c) for c in self.spreads},
            budget_s,
            clock=lambda: self.now,
        )
        chance = random.Random(1)
        while (trial := budget.take()) is not None:
            took_s = self.takes_s.get(trial.case, 3.0)
            self.now += took_s
            self.ran.append(trial)
            budget.add(trial, self._result(trial.case, chance), took_s)
        return budget

    def _result(self, of: Case, chance: random.Random) -> TrialResult:
        status = self.statuses.get(of, "ok")
        if status != "ok":
            return TrialResult(status, "a reason")
        value = 100 * chance.lognormvariate(0, self.spreads[of])
        name = "top1_percent" if of.mode == "fit" else THROUGHPUT
        return TrialResult("ok", metrics=(Metric(name, value),))

    @property
    def counts(self) -> Counter[Case]:
        return Counter(trial.case for trial in self.ran)

    @property
    def spent_s(self) -> float:
        return self.now - 1000.0


def test_the_widest_comparison_gets_the_most_blocks() -> None:
    simulation = Simulation({PLAIN: 0.002, CALM: 0.002, WILD: 0.1})
    budget = simulation.run(300)
    counts = simulation.counts
    assert counts[WILD] > 4 * counts[CALM]
    assert simulation.spent_s <= 300
    assert budget.ended_by == "time"
    assert 300 - simulation.spent_s < 2 * 3.0  # less than one more block


def test_a_block_has_both_sides_of_a_comparison_side_by_side() -> None:
    simulation = Simulation({PLAIN: 0.02, CALM: 0.03, WILD: 0.1})
    simulation.run(200)
    blocks: dict[int, list[Trial]] = {}
    for trial in simulation.ran:
        blocks.setdefault(trial.repeat, []).append(trial)
    assert sorted(blocks) == list(range(len(blocks)))
    for number, block in blocks.items():
        cases = [trial.case for trial in block]
        if number < 2:
            assert set(cases) == {PLAIN, CALM, WILD}
        else:
            assert set(cases) in ({PLAIN, CALM}, {PLAIN, WILD})
    assert [t.position for t in simulation.ran] == list(range(len(simulation.ran)))
    assert {t.seed - t.repeat for t in simulation.ran} == {0}
    orders = {tuple(t.case is PLAIN for t in blocks[n]) for n in range(2, len(blocks))}
    assert orders == {(True, False), (False, True)}  # shuffled


def test_trials_that_run_at_once_are_of_different_comparisons() -> None:
    """Where the widest has its trials on the way, the next one is begun."""
    simulation = Simulation({PLAIN: 0.002, CALM: 0.05, WILD: 0.1})
    suite = Suite(name="two", cases=tuple(simulation.spreads), repeats={"infer": 1})
    expected_s = {c.identity: 3.0 for c in simulation.spreads}
    budget = Budget(suite, PAIRS, expected_s, 1000, clock=lambda: simulation.now)
    chance = random.Random(1)
    for _ in range(2 * len(suite.cases)):  # the first blocks
        trial = budget.take()
        assert trial is not None
        budget.add(trial, simulation._result(trial.case, chance), 3.0)
    taken = [budget.take() for _ in range(4)]
    assert {trial.case for trial in taken if trial is not None} == {PLAIN, CALM, WILD}


def test_the_first_blocks_are_those_of_a_run_without_a_budget() -> None:
    """Quick answers first: counting, then speed, then training."""
    profile = case("ViT-Ti/16", "profile")
    cases = (PLAIN, CALM, profile, case("ViT-Ti/16", "fit", data="digits"))
    simulation = Simulation(dict.fromkeys(cases, 0.02))
    simulation.run(40, pairs=[(PLAIN, CALM)])
    suite = Suite(name="simulated", cases=cases, repeats=dict.fromkeys(MODES, 1))
    first = [(t.case, t.repeat, t.seed) for t in order_trials(suite)]
    assert [(t.case, t.repeat, t.seed) for t in simulation.ran[:4]] == first
    assert simulation.counts[profile] == 1  # it is deterministic


def test_it_ends_when_every_interval_is_narrow_enough() -> None:
    simulation = Simulation({PLAIN: 1e-4, CALM: 1e-4, WILD: 1e-4, ALONE: 1e-4})
    budget = simulation.run(3600)
    assert budget.ended_by == "targets"
    assert simulation.spent_s < 60
    assert budget.describe().startswith("every interval is narrow enough after ")
    assert budget.summary()["trials"] == {
        c.identity: n for c, n in simulation.counts.items()
    }


def test_the_target_is_that_of_the_case() -> None:
    cases = {
        case("ViT-Ti/16", timing={"target": 0.5}): 0.05,
        case("ViT-S/16", batch_size=4): 0.05,
    }
    simulation = Simulation(cases)
    simulation.run(600, pairs=[])
    few, many = (simulation.counts[c] for c in cases)
    assert few < many


def test_the_repeats_of_the_suite_are_no_limit() -> None:
    simulation = Simulation({ALONE: 0.1})
    simulation.run(60, pairs=[])
    assert simulation.counts[ALONE] == 20


@pytest.mark.parametrize("budget_s", [2.0, 7.5, 20.0, 61.0])
def test_no_trial_begins_that_would_not_end_inside(budget_s: float) -> None:
    takes = {PLAIN: 3.0, CALM: 2.0, WILD: 5.0}
    simulation = Simulation(dict.fromkeys(takes, 0.05), takes)
    simulation.run(budget_s, expected_s=takes.__getitem__)
    assert simulation.spent_s <= budget_s


def test_what_the_budget_does_not_pay_for_is_named() -> None:
    training = case("ViT-Ti/16", "fit", data="digits")
    simulation = Simulation({PLAIN: 0.05, training: 0.0}, {training: 900.0})
    budget = simulation.run(
        60, pairs=[], expected_s=lambda c: 900.0 if c is training else 3.0
    )
    assert simulation.counts[training] == 0
    assert simulation.counts[PLAIN] == 20
    assert budget.ended_by == "time"
    assert "not begun: fit ViT-Ti/16 (about 15 min 0 s a trial)" in budget.describe()
    assert len(budget) == 20


def test_forecasts_that_are_far_too_long_leave_nothing_out() -> None:
    """What has run shows how long the rest takes."""
    simulation = Simulation(dict.fromkeys((PLAIN, CALM, WILD), 0.01))
    simulation.run(120, expected_s=lambda c: 60.0)
    assert set(simulation.counts) == {PLAIN, CALM, WILD}
    assert min(simulation.counts.values()) >= 2


def test_a_case_that_fails_is_not_tried_forever() -> None:
    simulation = Simulation(
        {PLAIN: 0.05, CALM: 0.05, WILD: 0.05}, statuses={WILD: "oom"}
    )
    simulation.run(300)
    assert simulation.counts[WILD] == 1
    assert simulation.counts[CALM] > 10


def test_what_failed_is_named_and_has_no_narrow_interval() -> None:
    simulation = Simulation(
        {PLAIN: 1e-4, CALM: 1e-4, WILD: 1e-4}, statuses={WILD: "oom"}
    )
    budget = simulation.run(300)
    assert budget.ended_by == "targets"
    told = budget.describe()
    assert told.startswith("every interval of what did not fail is narrow enough after")
    assert told.endswith("; no more trials of infer ViT-Ti/16+TL16@6 (oom)")


def test_a_run_that_only_failed_says_so() -> None:
    simulation = Simulation({PLAIN: 0.05, ALONE: 0.05}, statuses=ALL_OOM)
    budget = simulation.run(300, pairs=[])
    assert len(simulation.ran) == 2
    assert budget.summary()["ended_by"] == "failures"
    assert "narrow enough" not in budget.describe()
    assert budget.describe().startswith("nothing is left to repeat after 6.00 s of")


def test_what_is_left_of_a_failed_comparison_gets_blocks_of_its_own() -> None:
    simulation = Simulation({PLAIN: 0.05, CALM: 0.05}, statuses={PLAIN: "oom"})
    simulation.run(60, pairs=[(PLAIN, CALM)])
    assert simulation.counts == {PLAIN: 1, CALM: 19}


def test_a_skipped_trial_says_nothing_of_how_long_others_take() -> None:
    """It is over at once, whatever its forecast was."""
    long = case("ViT-L/16")
    takes = {PLAIN: 1e-5, ALONE: 1e-5, long: 100.0}
    simulation = Simulation(
        dict.fromkeys(takes, 0.05), takes, dict.fromkeys((PLAIN, ALONE), "skipped")
    )
    simulation.run(50, pairs=[], expected_s=lambda c: 100.0 if c is long else 10.0)
    assert simulation.counts[long] == 0


def test_a_budget_in_which_nothing_begins_names_the_shortest_trial() -> None:
    simulation = Simulation({PLAIN: 0.05, ALONE: 0.05})
    with pytest.raises(TlbenchError, match=r"shortest, infer ViT-S/16, takes about 2"):
        simulation.run(1.5, [], expected_s=lambda c: 2.0 if c is ALONE else 3.0)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661)],
)
def test_a_budget_is_a_time_with_its_unit(text: str, expected_s: float) -> None:
    assert parse_budget(text) == expected_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "20 has no unit: 20m or 20s would be right"),
        ("", "'' is not a time: 90s, 20m or 1h30m would be right"),
        ("0m", "'0m' is not a time"),
        ("30m1h", "'30m1h' is not a time"),
        ("-5m", "'-5m' is not a time"),
        ("1.5h", "'1.5h' is not a time"),
    ],
)
def test_a_budget_without_unit_or_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_budget(text)
