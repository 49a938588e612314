"""The map of where TokenLearner is faster."""

from collections.abc import Mapping
from typing import Any

import pytest

from support.report_run import RunBuilder, timed
from support.svg_values import Mark, Picture
from tlbench.reports.break_even import (
    FAILED,
    NOT_MEASURED,
    WORDS,
    BreakEvenMap,
    break_even_chart,
    break_even_edges,
    break_even_maps,
    break_even_table,
)
from tlbench.reports.cases import gather
from tlbench.reports.compare import Comparison, comparisons
from tlbench.reports.drawing import NoChart
from tlbench.reports.verdicts import TIMES
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

PAIR = ("ViT-Ti/16@{}", "ViT-Ti/16@{}+TL8v1@1/2")
CLIPS = ("ViViT-B/16x2@224x{}", "ViViT-B/16x2@224x{}+TL8v1@1/2")
SLOWER, FASTER = WORDS["worse"], WORDS["better"]
BASE = (100.0, 102.0, 101.0)
Speedups = Mapping[tuple[int, int], float]


def add(
    run: RunBuilder,
    speedups: Speedups,
    names: tuple[str, str] = PAIR,
    noise: float = 1.0,
    **changes: Any,
) -> None:
    """Both models of each combination; `noise` is between the blocks of the second."""
    for (batch, size), speedup in speedups.items():
        plain, learned = (
            Case.model_validate(
                {"mode": "infer", "batch_size": batch, **changes}
                | {"model": parse_model(name.format(size))}
            )
            for name in names
        )
        factors = (speedup / noise, speedup, speedup * noise)
        faster = [b * f for b, f in zip(BASE, factors, strict=True)]
        run.add(plain, timed(BASE, 2e9))
        run.add(learned, timed(faster, 1e9))


def compared(run: RunBuilder) -> list[Comparison]:
    return comparisons(gather([run.record], run.trials))


def maps(run: RunBuilder) -> list[BreakEvenMap]:
    return break_even_maps(compared(run))


def picture_of(run: RunBuilder) -> Picture:
    return Picture(break_even_chart(compared(run)))


def cells(picture: Picture, panel: int = 0) -> dict[tuple[str, str], list[str]]:
    """The lines written inside each cell, by batch and size."""
    marks = picture.marks("cell", panel)
    return {
        (mark.row, mark.column): [
            text for place, text in picture.written(panel) if mark.holds(place)
        ]
        for mark in marks
    }


SPEEDUPS: Speedups = {(1, 64): 0.8, (1, 224): 1.25, (16, 64): 0.9, (16, 224): 1.6}


def test_a_cell_tells_the_speedup_of_its_combination_and_the_verdict(
    run: RunBuilder,
) -> None:
    add(run, SPEEDUPS)
    assert cells(picture_of(run)) == {
        ("1", "64"): [f"0.800{TIMES}", SLOWER],
        ("1", "224"): [f"1.25{TIMES}", FASTER],
        ("16", "64"): [f"0.900{TIMES}", SLOWER],
        ("16", "224"): [f"1.60{TIMES}", FASTER],
    }


def test_what_is_not_settled_says_so_in_words(run: RunBuilder) -> None:
    add(run, {(1, 64): 1.05, (2, 64): 1.001}, noise=1.2)
    add(run, {(4, 64): 1.001})
    found = cells(picture_of(run))
    assert found["1", "64"][1] == WORDS["inconclusive"]
    assert found["4", "64"][1] == WORDS["equivalent"]


def test_combinations_without_a_value_are_told_apart(run: RunBuilder) -> None:
    add(run, {(1, 64): 0.8, (1, 224): 1.25, (16, 64): 0.9})
    for name in PAIR:
        run.fail(Case(model=parse_model(name.format(128)), mode="infer", batch_size=1))
    found = cells(picture_of(run))
    assert found["1", "128"] == [FAILED]
    assert found["16", "224"] == [NOT_MEASURED]


def test_break_even_runs_between_cells_on_both_sides_of_one(run: RunBuilder) -> None:
    add(run, SPEEDUPS)
    (line, above) = picture_of(run).marks("break-even")
    picture = picture_of(run)
    slower, faster = (
        next(m for m in picture.marks("cell") if (m.row, m.column) == ("1", size))
        for size in ("64", "224")
    )
    border = max(x for x, _ in slower.points)
    assert border == pytest.approx(min(x for x, _ in faster.points), abs=1e-3)
    for mark in (line, above):
        assert [x for x, _ in mark.points] == pytest.approx([border] * 2, abs=1e-3)
    assert heights(line) == pytest.approx(heights(slower), abs=1e-3)


def heights(mark: Mark) -> list[float]:
    """Where it begins and ends on the paper."""
    ys = [y for _, y in mark.points]
    return [min(ys), max(ys)]


def test_break_even_is_not_drawn_beside_what_was_not_measured(run: RunBuilder) -> None:
    add(run, {(1, 64): 0.8, (16, 128): 1.3})
    (found,) = maps(run)
    assert list(break_even_edges(found)) == []


def test_break_even_is_settled_where_both_sides_are(run: RunBuilder) -> None:
    add(run, {(1, 64): 0.8, (1, 224): 1.25})
    add(run, {(2, 64): 0.98, (2, 224): 1.25}, noise=1.05)
    (found,) = maps(run)
    assert [is_settled for _, is_settled in break_even_edges(found)] == [True, False]
    solid, dotted = picture_of(run).marks("break-even")
    assert "stroke-dasharray" not in solid.style
    assert "stroke-dasharray" in dotted.style


def test_clips_are_mapped_over_their_frames(run: RunBuilder) -> None:
    add(run, {(1, 8): 0.9, (1, 32): 1.5}, names=CLIPS)
    (found,) = maps(run)
    assert (found.axis, found.sizes, found.batches) == ("frames", [8, 32], [1])
    assert found.title == "ViViT-B/16x2+TL8v1@6 against ViViT-B/16x2, inference"


def test_a_map_is_named_without_the_size_and_counts_its_verdicts(
    run: RunBuilder,
) -> None:
    add(run, SPEEDUPS)
    (found,) = maps(run)
    assert found.title == "ViT-Ti/16+TL8v1@6 against ViT-Ti/16, inference"
    assert found.score == "faster at 2, slower at 2 of 4 measured"


def test_other_settings_have_maps_of_their_own_and_are_named(run: RunBuilder) -> None:
    for precision in ("fp32", "bf16"):
        add(run, {(1, 64): 0.8, (8, 64): 1.2}, precision=precision)
    assert len(maps(run)) == 2
    titles = " ".join(picture_of(run).texts)
    assert "inference, fp32: faster at 1" in titles
    assert "inference, bf16: faster at 1" in titles


def test_one_combination_makes_no_map(run: RunBuilder) -> None:
    add(run, {(1, 64): 0.8})
    assert maps(run) == []
    assert isinstance(break_even_chart(compared(run)), NoChart)


def test_a_model_held_against_another_family_is_on_no_map(run: RunBuilder) -> None:
    names = ("ViT-Ti/16@{}", "ViT-S/16@{}+TL8v1@1/2")
    add(run, {(1, 64): 1.2, (8, 64): 1.3}, names=names)
    assert maps(run) == []


def test_the_table_has_predicted_and_realised_speedup_of_every_cell(
    run: RunBuilder,
) -> None:
    add(run, SPEEDUPS)
    table = break_even_table(compared(run))
    rows = [
        dict(zip(table.headings, [cell.text for cell in row.cells], strict=True))
        for row in table.rows
    ]
    told = [(row["batch"], row["image size"], row["realised"]) for row in rows]
    assert told == [
        ("1", "64", f"0.800{TIMES}"),
        ("1", "224", f"1.25{TIMES}"),
        ("16", "64", f"0.900{TIMES}"),
        ("16", "224", f"1.60{TIMES}"),
    ]
    assert {row["predicted"] for row in rows} == {f"2.00{TIMES}"}
    assert rows[0]["share of predicted [%]"] == "40.0"
