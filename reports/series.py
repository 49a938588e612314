"""What series of a chart are called, beside what its axes tell already."""

from collections.abc import Collection, Sequence

from tlbench.reports.cases import CaseTrials, circumstances, describe_setting


def told_apart(
    cases: Sequence[CaseTrials], on_axes: Collection[str] = ()
) -> list[list[str]]:
    """The settings in which the cases differ, in words; not those on the axes."""
    told = [
        {"run": case.run_name, "machine": case.machine_name} | circumstances(case.case)
        for case in cases
    ]
    varying = [
        name
        for name in (told[0] if told else ())
        if name not in on_axes and any(t.get(name) != told[0][name] for t in told)
    ]
    return [[describe_setting(n, t.get(n)) for n in varying] for t in told]


def series_names(
    cases: Sequence[CaseTrials], on_axes: Collection[str] = ()
) -> list[str]:
    """Each case by its model and by what tells it from the others."""
    words = told_apart(cases, on_axes)
    return [", ".join([case.model, *w]) for case, w in zip(cases, words, strict=True)]
