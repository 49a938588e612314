"""What the words of a comparison mean, and what is said where they mean nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from support.stored_runs import StoredRuns, case, speeds
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError, StoreError
from tlbench.reports.selection import parse_selection, select

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@1/2")
POOLED = case("ViT-Ti/16+pool2@3,6")
BF16 = case(precision="bf16", batch_size=16)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Two runs; only the older has the case in bf16."""
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        runs = StoredRuns(store)
        runs.add((PLAIN, speeds(1, 2)), (BF16, speeds(3, 4)))
        runs.add((PLAIN, speeds(1, 2)), (LEARNED, speeds(5)), (POOLED, speeds(6)))
        with store.session() as session:
            yield session


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("3", ["run=3"]),
        ("run=3", ["run=3"]),
        (" run = 3 ", ["run=3"]),
        ("case=1a2b3c4d", ["case=1a2b3c4d"]),
        ("model=ViT-B/16,mode=infer,run=3", ["model=ViT-B/16", "mode=infer", "run=3"]),
        ("model~TL,batch_size=8", ["model~TL", "batch_size=8"]),
        ("model=ViT-B/16+TL8@1/4", ["model=ViT-B/16+TL8@3"]),
        ("model=mini+TL8@1", ["model=mini+TL8@1"]),
        (
            "model=ViT-L/16@512+pool4@9,18,mode=infer",
            ["model=ViT-L/16@512+pool4@9,18", "mode=infer"],
        ),
        (
            "mode=infer,model=ViT-Ti/16+random(keep=8,place=6)",
            ["mode=infer", "model=ViT-Ti/16+random(keep=8,place=6)"],
        ),
    ],
)
def test_a_selection_is_read(text: str, conditions: list[str]) -> None:
    assert [str(c) for c in parse_selection(text).conditions] == conditions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'': '' names nothing; a run \(3\), a case"),
        ("ViT-B/16", "'ViT-B/16' is not understood; a run"),
        ("model=", "'model=' is not understood"),
        ("run=newest", "'run=newest' is no run; its number, such as run=3"),
        ("run~3", "'run~3' is no run"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        parse_selection(text)


@pytest.mark.parametrize(
    ("text", "run_ids", "models"),
    [
        ("1", {1}, {"ViT-Ti/16"}),
        ("mode=infer", {2}, {"ViT-Ti/16", "ViT-Ti/16+TL8@6", "ViT-Ti/16+pool2@3,6"}),
        ("model~TL", {2}, {"ViT-Ti/16+TL8@6"}),
        ("model~16+*@", {2}, {"ViT-Ti/16+TL8@6", "ViT-Ti/16+pool2@3,6"}),
        ("model=ViT-Ti/16+pool2@3,6", {2}, {"ViT-Ti/16+pool2@3,6"}),
        ("precision=bf16", {1}, {"ViT-Ti/16"}),
        ("batch_size=16", {1}, {"ViT-Ti/16"}),
        ("model=ViT-Ti/16,run=1,run=2", {1, 2}, {"ViT-Ti/16"}),
        ("model.patch_size=16,compile=false,run=1", {1}, {"ViT-Ti/16"}),
        ("optimizer.learning_rate=1e-3,run=1", {1}, {"ViT-Ti/16"}),
        ("memory_limit_gib=null,run=1", {1}, {"ViT-Ti/16"}),
        (f"case={LEARNED.identity[:9]}", {2}, {"ViT-Ti/16+TL8@6"}),
    ],
)
def test_a_selection_finds_its_cases(
    session: Session, text: str, run_ids: set[int], models: set[str]
) -> None:
    """In the newest run that has any, unless runs are named."""
    found = select(session, parse_selection(text))
    assert {run.id for run in found.runs} == run_ids
    assert {case.run_id for case in found.cases} == run_ids
    assert {case.model for case in found.cases} == models


def test_a_condition_leaves_the_others_of_its_runs_beside(session: Session) -> None:
    found = select(session, parse_selection("precision=bf16"))
    assert [case.case for case in found.cases] == [BF16]
    assert [case.case for case in found.neighbours] == [PLAIN, BF16]
    assert len(found.trial_ids) == 2


def test_the_same_conditions_in_more_runs(session: Session) -> None:
    found = select(session, parse_selection("precision=bf16"))
    assert str(found.with_run(2)) == "precision=bf16,run=1,run=2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model=ViT-B/16",
            r"no stored trial has model=ViT-B/16; there are ViT-Ti/16, ",
        ),
        ("precision=fp61", "no stored trial has precision=fp61; there are fp32, bf16"),
        ("run=1,compile=true", "has compile=true; there are false$"),
        ("precison=fp32", "'precison' is no setting .* did you mean 'precision'"),
        ("model~TL,precision=bf16", "no stored trial meets all of it at once"),
        ("run=1,model~TL", "no stored trial has model~TL; there are ViT-Ti/16$"),
    ],
)
def test_what_nothing_meets_is_named_with_what_there_is(
    session: Session, text: str, message: str
) -> None:
    with pytest.raises(ReportError, match=message):
        select(session, parse_selection(text))


def test_a_run_that_is_not_there_is_named(session: Session) -> None:
    with pytest.raises(StoreError, match="there is no run 7; there are 2, 1"):
        select(session, parse_selection("7"))


def test_the_beginning_of_an_identity_has_to_be_of_one_case(tmp_path: Path) -> None:
    cases = [
        case(batch_size=size) for size in range(1, 18)
    ]  # of 16 digits one is twice
    first = Counter(c.identity[0] for c in cases).most_common(1)[0][0]
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        StoredRuns(store).add(*((c, speeds(1)) for c in cases))
        with (
            store.session() as session,
            pytest.raises(ReportError, match=r"begins \d+ cases .*; more digits"),
        ):
            select(session, parse_selection(f"case={first}"))
