"""Which stored cases a history is asked of, and what they are called beside others."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from tlbench.db.conditions import Condition, parse_conditions, read_moment
from tlbench.db.history import KnownCase, known_cases
from tlbench.db.search import Search
from tlbench.db.settings import flatten, settings
from tlbench.errors import ReportError, SuiteError
from tlbench.reports.cases import describe_setting
from tlbench.suites.names import did_you_mean, model_name, parse_model

FEWEST_DIGITS = 4
"""Of a case's identity, where nothing else says that it is one."""
MOST_NAMED = 6
"""Models that an error lists."""


def find_cases(session: Session, text: str) -> list[KnownCase]:
    """The cases that a word on the command line means, those of the newest run first.

    A run (`3`: the cases that it has), a model, a case by the first digits of its
    identity, or conditions as `tlbench query` takes them.
    """
    known = known_cases(session)
    if not known:
        raise ReportError(
            "the database holds no trial yet; `tlbench run smoke` makes some"
        )
    search = Search(session, _conditions(text, known))
    if not search.keys:
        raise ReportError(f"{text}: {search.why_nothing()}")
    found = {(key.run, key.case) for key in search.keys}
    wanted = {
        (case.identity, case.origin)
        for case in known
        if (case.run_id, case.case_id) in found
    }
    return [case for case in known if (case.identity, case.origin) in wanted]


def _conditions(text: str, known: Sequence[KnownCase]) -> tuple[Condition, ...]:
    """One word is a model or a case, if it is no condition and no run."""
    models = {case.model for case in known}
    for name in (text, _printed(text)):
        if name in models:
            return (Condition("model", "=", name),)
    is_identity = re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},}}", text) is not None
    if is_identity and any(case.identity.startswith(text) for case in known):
        return (Condition("case", "=", text),)
    if re.search("[=~<>]", text) or text.strip().isdecimal():
        return parse_conditions(text)
    raise ReportError(
        f"{text}: no stored model or case is called that"
        f"{did_you_mean(text, sorted(models)) or _there_are(known)}"
    )


def _printed(name: str) -> str:
    try:
        return model_name(parse_model(name))
    except SuiteError:
        return name


def _there_are(known: Sequence[KnownCase]) -> str:
    models = list(dict.fromkeys(case.model for case in known))
    more = f" and {len(models) - MOST_NAMED} more" if models[MOST_NAMED:] else ""
    return f"; the models are {', '.join(models[:MOST_NAMED])}{more}"


def moment_of(since: str) -> datetime:
    """When `90d` or `2026-01-31` was, as in the condition `since=`."""
    return read_moment(Condition("since", "=", since))


def label_cases(cases: Sequence[KnownCase]) -> list[tuple[KnownCase, str]]:
    """Each with its model, and the settings that tell it from others of its mode."""
    trees = [_settings_of(case) for case in cases]
    kinds = [(c.origin, t.get("mode")) for c, t in zip(cases, trees, strict=True)]
    of_kind: dict[object, list[dict[str, Any]]] = defaultdict(list)
    for kind, tree in zip(kinds, trees, strict=True):
        of_kind[kind].append(tree)
    labels = []
    for case, kind, tree in zip(cases, kinds, trees, strict=True):
        alike = of_kind[kind]
        told = [
            describe_setting(name, value)
            for name, value in tree.items()
            if any(other.get(name) != value for other in alike)
        ]
        origin = [] if case.origin is None else [f"by {case.origin}"]
        labels.append((case, ", ".join([case.model, *told, *origin])))
    return labels


def _settings_of(case: KnownCase) -> dict[str, Any]:
    """Every setting but the model's; of a foreign case, what its tool has told."""
    told = flatten(case.canonical) if case.origin else settings(case.canonical).items()
    return {name: v for name, v in told if name.partition(".")[0] != "model"}
