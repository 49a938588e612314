"""What stands in the tables: the numbers of the records, in the unit of the heading."""

from typing import Any

import pytest

from support.report_run import RunBuilder, model, staged, timed
from tlbench.reports.cases import gather
from tlbench.reports.cells import Table
from tlbench.reports.quantities import CEILING
from tlbench.reports.tables import cost_table, memory_table, stage_table
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case
from tlbench.units import UNKNOWN

INFER = Case(model=model(1), mode="infer")


def shown(table: Table) -> list[dict[str, str]]:
    return [
        {
            heading: cell.text
            for heading, cell in zip(table.headings, row.cells, strict=True)
        }
        for row in table.rows
    ]


def memory_rows(run: RunBuilder, **values: Any) -> list[dict[str, str]]:
    run.add(INFER, [dict(timed([1.0], 1e9)[0]) | values])
    return shown(memory_table(gather([run.record], run.trials)))


def test_growth_is_held_against_its_prediction_on_a_cpu(run: RunBuilder) -> None:
    (row,) = memory_rows(
        run,
        peak_memory_host_growth_bytes=110 * 2**20,
        predicted_memory_growth_bytes=100 * 2**20,
        predicted_memory_bytes=500 * 2**20,
    )
    assert row == {
        "case": "ViT-tiny+TL8@1",
        "mode": "infer",
        "predicted [MiB]": "100.0",
        "measured [MiB]": "110.0",
        "measured over predicted": "1.10",
    }


def test_the_whole_is_held_against_its_prediction_on_a_gpu(run: RunBuilder) -> None:
    (row,) = memory_rows(
        run,
        peak_memory_allocated_bytes=450 * 2**20,
        predicted_memory_growth_bytes=100 * 2**20,
        predicted_memory_bytes=500 * 2**20,
    )
    assert row["predicted [MiB]"] == "500.0"
    assert row["measured over predicted"] == "0.900"


@pytest.mark.parametrize(
    "missing", ["predicted_memory_growth", "peak_memory_host_growth"]
)
def test_a_case_with_one_side_alone_is_not_in_the_table(
    run: RunBuilder, missing: str
) -> None:
    assert memory_rows(run, **{f"{missing}_bytes": None}) == []


def test_stages_have_their_shares_of_time_and_compute(run: RunBuilder) -> None:
    run.add(INFER, [staged(tokenizer=0.001, after=0.005)])
    rows = shown(stage_table(gather([run.record], run.trials)))
    assert [row["stage"] for row in rows] == [
        "embedding", "blocks before", "tokenizer", "blocks after", "head",
    ]  # fmt: skip
    after = rows[3]
    assert after["time [ms]"] == "5.000"
    assert after["share of time [%]"] == after["share of compute [%]"] == "50.0"
    assert after["compute [GMACs]"] == "5.000"
    assert after["memory [MiB]"] == "1.000"
    assert after[CEILING.heading] == "2.000"
    assert rows[0][CEILING.heading] == "\N{EN DASH}"


def test_a_model_without_a_stage_has_no_row_of_it(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), [staged()])
    rows = shown(stage_table(gather([run.record], run.trials)))
    assert [row["stage"] for row in rows] == ["embedding", "blocks before", "head"]


def test_a_stage_that_was_not_timed_has_its_reason(run: RunBuilder) -> None:
    unknown = {
        name: None if name.endswith("_time_s") else value
        for name, value in staged().items()
    }
    run.add(INFER, [unknown])
    table = stage_table(gather([run.record], run.trials))
    time, share = table.rows[0].cells[2:4]
    assert (time.text, time.hint) == ("\N{EN DASH}", "not on a CPU")
    assert (share.text, share.hint) == ("\N{EN DASH}", "not on a CPU")


def cost_rows(run: RunBuilder, name: str, **counted: Any) -> list[dict[str, str]]:
    case = Case(model=parse_model(name), mode="profile")
    run.add(
        case, [{"params": 88e6, "macs": 12.953e9, "counter_macs": 12.953e9} | counted]
    )
    run.add(INFER, timed([1.0], 1e9))
    return shown(cost_table(gather([run.record], run.trials)))


def test_cost_stands_beside_the_published_one(run: RunBuilder) -> None:
    (row,) = cost_rows(run, "ViT-B/32@384", profiler_macs=12.953e9)
    assert row == {
        "case": "ViT-B/32@384",
        "parameters [M]": "88.00",
        "compute [GMACs]": "12.95",
        "by torch [GMACs]": "12.95",
        "by DeepSpeed [GMACs]": "12.95",
        "published [GFLOPS]": "19.8\N{DAGGER}",
        "ours [GFLOPS]": "13.00",
        "ratio": "0.656",
        "verdict": "misprint",
    }


def test_cost_has_a_row_for_each_published_number(run: RunBuilder) -> None:
    rows = cost_rows(run, "ViT-L/16@512+TL16v1@12")
    assert [(row["published [GFLOPS]"], row["verdict"]) for row in rows] == [
        ("178.1\N{DAGGER}", "misprint"),
        ("184.6", "agrees"),
        ("184.6", "agrees"),
    ]


@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-Ti/16+stride(step=2,place=1)"])
def test_cost_of_what_nobody_published_is_shown_too(name: str, run: RunBuilder) -> None:
    (row,) = cost_rows(run, name, profiler_macs=None)
    assert row["by DeepSpeed [GMACs]"] == row["published [GFLOPS]"] == UNKNOWN
    assert row["verdict"] == UNKNOWN


def test_cost_of_a_builders_model_is_torchs_count(run: RunBuilder) -> None:
    case = Case(model=parse_model("ViT-Ti/16+tome(r=8)"), mode="profile")
    run.add(case, [{"params": 5e6, "macs": 1.25e9}])
    table = cost_table(gather([run.record], run.trials))
    (row,) = shown(table)
    assert (row["compute [GMACs]"], row["by torch [GMACs]"]) == (UNKNOWN, "1.250")
    hint = table.rows[0].cells[2].hint
    assert hint == "what tome builds has no closed form of its cost"
