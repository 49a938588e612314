"""The command line: help, exit codes, what goes to stdout and what to stderr."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click
import pytest
import typer

from support import stored_runs
from tlbench.cli import app, main, options
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.events import Finished
from tlbench.machine import fingerprint
from tlbench.models import cost, reference
from tlbench.reports.verdicts import TIMES
from tlbench.result import Artifact, Metric, TrialResult
from tlbench.suites.loader import builtin_suites, load_suite
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial
from tlbench.units import UNKNOWN

HEAVY = {
    *("torch", "ray", "deepspeed", "timm", "pandas", "seaborn", "matplotlib"),
    *("sqlalchemy", "alembic", "scipy", "sklearn", "numpy", "yaml"),
}
"""What takes long to import; Typer needs pydantic itself."""
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOG = "".join(f"line {n}\n" for n in range(40)).encode() + b"\x1b[31mno \xff\x1bc\n"
"""With a colour, a byte that is no UTF-8, and what resets a terminal."""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Command(NamedTuple):
    words: tuple[str, ...]
    help: str


def commands(
    command: click.Command | None = None, words: tuple[str, ...] = ()
) -> Iterator[Command]:
    """All commands of the application, those inside a group too."""
    found: Any = command or typer.main.get_command(app)
    if not hasattr(found, "commands"):
        yield Command(words, found.help or "")
        return
    for name, inner in found.commands.items():
        yield from commands(inner, (*words, name))


COMMANDS = list(commands())


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Call `tlbench` in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLBENCH_DB", raising=False)
    on_term = signal.getsignal(signal.SIGTERM)  # `run` sets its own

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["tlbench", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        signal.signal(signal.SIGTERM, on_term)
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return call


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with one run: a trial that went well and one that did not."""
    cases = tuple(
        Case(model=parse_model(name), mode="infer")
        for name in ("ViT-Ti/16", "ViT-Ti/16+TL8@6")
    )
    results = (
        TrialResult(
            "ok",
            metrics=(
                Metric("macs", 1e9),
                Metric("throughput_samples_per_s", 250.0),
                Metric("peak_memory_allocated_bytes", None, "measured on a GPU only"),
            ),
            artifacts=(Artifact("trace.json.gz", "application/gzip", b"a trace"),),
        ),
        TrialResult(
            "error",
            "rank 2: it [broke]",
            "Traceback: here",
            artifacts=(
                Artifact("log-rank-0.txt", "text/plain", b"all is well\n"),
                Artifact("log-rank-2.txt", "text/plain", LOG),
            ),
        ),
    )
    location = tmp_path / "results.db"
    with ResultStore.open(str(location), create=True) as store:
        suite = Suite(name="two", cases=cases, repeats={"infer": 1})
        run_id = store.begin_run(
            suite=suite, source="two.yaml", command="tlbench run two.yaml", planned=2
        )
        for position, (case, result) in enumerate(zip(cases, results, strict=True)):
            store.add_trial(
                run_id,
                Trial(case, repeat=0, position=position, seed=9),
                result,
                started_at=NOW,
                wall_time_s=4.0,
                command=f"tlbench run again-{position}",
            )
        store.end_run(run_id, "finished")
    return str(location)


@pytest.fixture
def empty_db(tmp_path: Path) -> str:
    location = str(tmp_path / "empty.db")
    ResultStore.open(location, create=True).close()
    return location


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c.words))
def test_every_command_has_a_summary_and_an_example(command: Command) -> None:
    summary = command.help.splitlines()[0]
    assert summary.rstrip().endswith(".")
    example = re.search(r"Example: `(tlbench [^`]+)`", command.help)
    assert example is not None
    assert example[1].split()[1 : len(command.words) + 1] == list(command.words)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c.words))
def test_every_command_prints_its_help(command: Command, call: Any) -> None:
    ended = call(*command.words, "--help")
    assert ended.code == 0
    assert "Example: " in ended.out


def test_no_help_imports_anything_heavy() -> None:
    script = f"""
import contextlib, io, sys
from tlbench.cli import app
for words in {[command.words for command in COMMANDS] + [()]!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            app([*words, "--help"])
        except SystemExit:
            pass
    assert "Example" in out.getvalue(), words
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("\n", "")


def test_version_is_printed(call: Any) -> None:
    assert call("--version").out.startswith("tlbench 0.")


def test_models_are_described_in_json(call: Any) -> None:
    ended = call("models", "ViT-B/16+TL8@1/4", "--json")
    (model,) = json.loads(ended.out)
    spec = parse_model("ViT-B/16+TL8@1/4")
    assert parse_model(model["name"]) == spec
    assert model["params"] == cost.params(spec, 1000)
    assert model["macs"] == cost.macs(spec, 1000)
    assert model["tokens"] == [196] * 3 + [8] * 9
    assert ended.err == ""


def test_models_expand_braces_and_take_the_number_of_classes(call: Any) -> None:
    arguments = ("ViT-Ti/16+TL{8,16}@{3,6}", "ViT-S/16", "--num-classes", "10")
    described = json.loads(call("models", *arguments, "--json").out)
    assert [model["name"] for model in described] == [
        *("ViT-Ti/16+TL8@3", "ViT-Ti/16+TL8@6"),
        *("ViT-Ti/16+TL16@3", "ViT-Ti/16+TL16@6"),
        "ViT-S/16",
    ]
    assert {model["num_classes"] for model in described} == {10}


def test_classes_are_those_of_imagenet_and_kinetics_if_none_are_named(
    call: Any,
) -> None:
    names = ("ViT-Ti/16", "ViViT-Ti/16x2")
    described = json.loads(call("models", *names, "--json").out)
    assert [model["num_classes"] for model in described] == [1000, 400]
    ended = call("models", "--certify", "ViViT-Ti/32x2", "--json")
    (certificate,) = json.loads(ended.out)
    assert certificate["num_classes"] == 400


def test_classes_of_all_published_models_cannot_be_set(call: Any) -> None:
    ended = call("models", "--certify", "--num-classes", "10")
    assert (ended.code, ended.out) == (2, "")
    assert "needs NAME; the published models have" in ended.err


def test_models_are_a_table_for_people(call: Any) -> None:
    out = call("models", "ViT-B/16").out
    assert "86,566,120" in out  # as timm counts it, without a class token
    assert "17.5 GMACs" in out or "17.47" in out
    assert "196 to 196" in out


def test_a_model_that_does_not_exist_is_wrong_usage(call: Any) -> None:
    ended = call("models", "ViT-Q/16")
    assert ended.code == 2
    assert ended.err.startswith("error: 'ViT-Q/16' cannot be built: 'Q' is not one of")
    assert ended.out == ""


def test_models_are_certified(call: Any) -> None:
    ended = call("models", "--certify", "ViT-Ti/16+TL8@6", "--num-classes", "10")
    assert ended.code == 0
    assert "1 certified, none with a failed check" in ended.out
    ended = call("models", "--certify", "ViT-Ti/16", "--json")
    (certificate,) = json.loads(ended.out)
    spec = parse_model("ViT-Ti/16")
    macs = cost.macs(spec, 1000)
    assert certificate["params"] == cost.params(spec, 1000)
    assert certificate["macs"] == certificate["counter_macs"] == macs
    assert {check["outcome"] for check in certificate["checks"]} == {"ok", "skipped"}


def test_a_failed_check_of_a_certificate_ends_with_1(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "EPS", 1e-5)
    ended = call("models", "--certify", "ViT-Ti/16+TL8@6")
    assert ended.code == 1
    assert "ViT-Ti/16+TL8@6: values: TokenLearner, a whole twin" in ended.out


def test_large_models_are_executed_only_where_that_is_asked_for(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbench.certify.PROFILER_MAX_MACS", 10**9)
    command = ("models", "--certify", "ViT-Ti/16", "--json")
    (certificate,) = json.loads(call(*command).out)
    assert certificate["profiler_macs"] is None
    (certificate,) = json.loads(call(*command, "--thorough").out)
    assert certificate["profiler_macs"] == cost.macs(parse_model("ViT-Ti/16"), 1000)


def test_thorough_without_certify_is_wrong_usage(call: Any) -> None:
    ended = call("models", "ViT-Ti/16", "--thorough")
    assert ended.code == 2
    assert "goes with --certify only" in ended.err


def test_models_without_a_name_are_wrong_usage(call: Any) -> None:
    ended = call("models")
    assert ended.code == 2
    assert "only --certify does without" in ended.err


def test_suites_name_those_that_are_built_in(call: Any) -> None:
    listed = json.loads(call("suites", "--json").out)
    assert {
        item["name"]: (item["description"], tuple(item["scales"])) for item in listed
    } == builtin_suites()
    assert re.search(r"^placement +cpu, profile +Where ", call("suites").out, re.M)


def test_plan_lists_every_case_and_starts_nothing(call: Any, tmp_path: Path) -> None:
    planned = json.loads(call("plan", "smoke", "--json").out)
    cases = load_suite("smoke").cases
    assert [item["identity"] for item in planned] == [case.identity for case in cases]
    for item, case in zip(planned, cases, strict=True):
        assert item["macs"] == cost.macs(case.model, 10)
        assert item["trial_time_s"] > 0
        assert item["time_source"] == "estimate"
    assert list(tmp_path.iterdir()) == []


def test_plan_tells_the_memory_of_each_setting_when_asked(call: Any) -> None:
    out = call("plan", "smoke", "--memory").out
    (heading,) = [line for line in out.splitlines() if "gradients" in line]
    assert heading.split()[-7:] == [
        "gradients", "optimizer", "activations", "total", "on", "the", "host",
    ]  # fmt: skip
    rows = [line for line in out.splitlines() if " bf16 " in line]
    assert len(rows) == 3 * (1 + 4 + 4)  # models; infer, and training by ZeRO stage
    assert "gradients" not in call("plan", "smoke").out


def test_plan_of_the_largest_model_needs_no_torch(tmp_path: Path) -> None:
    suite = tmp_path / "large.yaml"
    suite.write_text("models: [ViT-G/14@518]\nmode: [infer, train]\n")
    code = (
        "import sys; from tlbench.cli import app;"
        f"app(['plan', {str(suite)!r}, '--json'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    planned = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr
    assert [len(item["memory"]) for item in json.loads(planned.stdout)] == [2, 8]


def test_plan_tells_the_number_of_trials_and_the_time(call: Any) -> None:
    out = call("plan", "smoke").out
    trials = 3 * (3 + 3 + 2)
    assert f"{trials} trials, about " in out


def test_plan_is_of_the_scale_that_is_asked_for(call: Any) -> None:
    for arguments, scale in (((), None), (("--scale", "cpu"), "cpu")):
        planned = json.loads(call("plan", "scaling", *arguments, "--json").out)
        cases = load_suite("scaling", scale=scale).cases
        assert [item["identity"] for item in planned] == [c.identity for c in cases]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_unknown_scale_is_wrong_usage_and_starts_nothing(
    command: str, call: Any, tmp_path: Path
) -> None:
    ended = call(command, "scaling", "--scale", "cpus")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: scaling.yaml: 'cpus' is not one of its scales (cpu, profile);"
        " did you mean 'cpu'?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_plan_takes_times_of_this_hardware_from_the_database(
    call: Any, db: str, tmp_path: Path
) -> None:
    text = "models: [ViT-Ti/16, ViT-S/16]\nmode: infer\n"
    (tmp_path / "two.yaml").write_text(text)
    suite, here = load_suite("two.yaml", text), fingerprint()
    with ResultStore.open(db) as store:
        run_id = store.begin_run(suite=suite, source="", command="", planned=2)
        machines = (here, replace(here, cpu_model="Another CPU"))
        for position, (case, machine) in enumerate(
            zip(suite.cases, machines, strict=True)
        ):
            store.add_trial(
                run_id,
                Trial(case, repeat=0, position=position, seed=0),
                TrialResult("ok", machine=machine),
                started_at=NOW,
                wall_time_s=7.0,
                command="",
            )
    known, unknown = json.loads(call("plan", "two.yaml", "--db", db, "--json").out)
    assert (known["trial_time_s"], known["time_source"]) == (7.0, "history")
    assert unknown["time_source"] == "estimate"


BAD_SUITE = """\
models: [ViT-Q/16, ViT-B/16]
mode: inferr
batch_size: 0
precison: fp32
"""


@pytest.mark.parametrize("command", ["run", "plan"])
def test_each_mistake_of_a_suite_is_one_line_before_anything_starts(
    command: str, call: Any, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(BAD_SUITE)
    ended = call(command, "bad.yaml")
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == 4
    for number, line in enumerate(lines, start=1):
        assert line.startswith(f"error: bad.yaml:{number}: ")
    assert ended.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("command", ["run", "plan", "models"])
def test_a_call_of_a_builder_that_cannot_work_is_wrong_usage(
    command: str, call: Any, tmp_path: Path
) -> None:
    name = "ViT-Ti/16+random(keep=8,place=12)"
    (tmp_path / "suite.yaml").write_text(f"models: {name}\nmode: infer\n")
    ended = call(command, name if command == "models" else "suite.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith(
        "random(place=12) makes no sense: the index of a block from 0 to 11 would be"
        " right\n"
    )


def test_a_suite_may_come_from_standard_input(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"models": "ViT-Ti/16", "mode": "infer"})
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    (item,) = json.loads(call("plan", "-", "--json").out)
    assert item["model"] == "ViT-Ti/16"


def test_a_suite_that_is_not_there_is_wrong_usage(call: Any) -> None:
    ended = call("plan", "smok")
    assert ended.code == 2
    assert (
        "'smok' is neither a file nor a built-in suite (break-even, frontier, "
        in ended.err
    )
    assert ended.err.endswith("; did you mean 'smoke'?\n")


@pytest.mark.parametrize("arguments", [("plan",), ("plann", "smoke"), ("show", "x")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], call: Any) -> None:
    ended = call(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "arguments", [("show",), ("runs",), ("report", "x.html"), ("db", "upgrade")]
)
def test_a_database_that_is_not_there_is_an_error_and_none_is_made(
    arguments: tuple[str, ...], call: Any, tmp_path: Path
) -> None:
    ended = call(*arguments, "--db", "absent.db")
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert "absent.db" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_the_database_can_be_named_by_the_environment(
    call: Any, db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLBENCH_DB", db)
    (run,) = json.loads(call("runs", "--json").out)
    assert run["suite"] == "two"


@pytest.mark.parametrize("arguments", [("show",), ("report", "x.html")])
def test_an_empty_database_has_no_run_to_show(
    arguments: tuple[str, ...], call: Any, empty_db: str
) -> None:
    ended = call(*arguments, "--db", empty_db)
    assert ended.code == 1
    expected = "error: the database holds no run yet: `tlbench run smoke` makes one\n"
    assert ended.err == expected


def test_an_empty_database_lists_no_runs(call: Any, empty_db: str) -> None:
    assert json.loads(call("runs", "--db", empty_db, "--json").out) == []
    assert call("runs", "--db", empty_db).code == 0


def test_runs_are_listed(call: Any, db: str) -> None:
    (run,) = json.loads(call("runs", "--db", db, "--json").out)
    assert (run["planned"], run["finished"], run["failed"]) == (2, 2, 1)
    assert run["status"] == "finished"
    row = call("runs", "--db", db).out.splitlines()[1].split()
    assert row[:5] == ["1", "two", "finished", "2/2", "1"]


def test_a_run_is_shown_with_its_failures(call: Any, db: str) -> None:
    ended = call("show", "--db", db)
    assert ended.code == 0
    assert "ViT-Ti/16+TL8@6" in ended.out
    assert "250" in ended.out


def test_a_run_is_shown_in_json(call: Any, db: str) -> None:
    shown = json.loads(call("show", "1", "--db", db, "--json").out)
    assert shown["suite"] == "two"
    assert [trial["status"] for trial in shown["trials"]] == ["ok", "error"]
    first, second = shown["trials"]
    assert first["metrics"]["throughput_samples_per_s"] == 250.0
    assert first["metrics"]["peak_memory_allocated_bytes"] is None
    assert second["reason"] == "rank 2: it [broke]"


def test_what_a_trial_left_behind_is_saved(call: Any, db: str, tmp_path: Path) -> None:
    ended = call("show", "--trial", "1", "--save", "new/traces", "--db", db)
    assert ended.code == 0
    file = Path("new", "traces", "trace.json.gz")
    assert ended.err == f"saved {file}\n"
    assert (tmp_path / file).read_bytes() == b"a trace"


def test_a_saved_file_is_never_written_over(call: Any, db: str, tmp_path: Path) -> None:
    mine = tmp_path / "trace.json.gz"
    mine.write_text("mine")
    ended = call("show", "--trial", "1", "--save", ".", "--db", db)
    assert ended.code == 1
    assert "trace.json.gz is there already; --save names another" in ended.err
    assert mine.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(
    call: Any, db: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ended = call("show", "--trial", "1", "--save", "file/folder", "--db", db)
    assert ended.code == 1
    assert ended.err.startswith("error: cannot write into file/folder: ")


def test_a_trial_without_files_says_what_leaves_one(call: Any, tmp_path: Path) -> None:
    db = str(tmp_path / "plain.db")
    with ResultStore.open(db, create=True) as store:
        stored_runs.StoredRuns(store).add((stored_runs.case(), stored_runs.speeds(1)))
    ended = call("show", "--trial", "1", "--save", "traces", "--db", db)
    assert ended.code == 1
    assert "trial 1 has left no files; `trace: true` in a suite" in ended.err


def test_only_one_trial_can_be_saved(call: Any, db: str) -> None:
    ended = call("show", "--save", "traces", "--db", db)
    assert ended.code == 2
    assert "goes with --trial only" in ended.err


def test_a_failed_trial_shows_the_end_of_the_failing_ranks_log(
    call: Any, db: str
) -> None:
    out = call("show", "--trial", "2", "--db", db).out
    assert re.search(r"^ +0 +12(\.0)? \w+ +all is well *$", out, re.MULTILINE)
    assert "log of rank 2, last 15 of 41 lines" in out
    assert "line 26\n" in out
    assert "line 25\n" not in out
    assert "no \N{REPLACEMENT CHARACTER}\\x1bc" in out
    assert "\x1b" not in out
    assert "tlbench show --trial 2 --log 2" in out


def test_a_log_is_printed_whole_and_as_it_is_into_a_pipe(call: Any, db: str) -> None:
    out = call("show", "--trial", "2", "--log", "2", "--db", db).out
    assert out == LOG.decode(errors="replace")


def test_a_log_has_no_power_over_a_terminal(
    call: Any, db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = call("show", "--trial", "2", "--log", "2", "--db", db).out
    assert out.startswith("line 0\n")
    assert "\x1b" not in out


def test_a_log_that_is_not_there_names_those_that_are(call: Any, db: str) -> None:
    ended = call("show", "--trial", "2", "--log", "1", "--db", db)
    assert ended.code == 1
    assert "trial 2 (error) has no log of rank 1; there are those of 0, 2" in ended.err
    ended = call("show", "--trial", "1", "--log", "0", "--db", db)
    assert ended.code == 1
    assert "trial 1 (ok) has no log of rank 0\n" in ended.err


def test_attempts_of_a_trial_are_shown(call: Any, tmp_path: Path) -> None:
    db = str(tmp_path / "tried.db")
    with ResultStore.open(db, create=True) as store:
        case = stored_runs.case()
        run_id = store.begin_run(
            suite=Suite(name="one", cases=(case,), repeats={"infer": 1}),
            source="",
            command="",
            planned=1,
        )
        trial = Trial(case, repeat=0, position=0, seed=0)
        lost = TrialResult("lost", "its node vanished")
        store.add_attempt(run_id, Finished(trial, lost, NOW, 8.0, 1, ("node-a",)))
        store.add_trial(
            run_id,
            trial,
            TrialResult("ok"),
            started_at=NOW,
            wall_time_s=4.0,
            command="",
            attempts=2,
            nodes=("node-b",),
        )
        store.end_run(run_id, "finished")
    out = call("show", "--trial", "1", "--db", db).out
    assert "lost: its node vanished" in out
    assert "node-a" in out
    assert "node-b" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("show", "--log", "0"), "goes with --trial only"),
        (("show", "--trial", "2", "--log", "0", "--json"), "neither --json nor --save"),
        (("runs", "--watch", "--json"), "goes with neither --json nor --tag"),
        (("runs", "--watch", "--every", "0.1"), "equal to 2"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    arguments: tuple[str, ...], told: str, call: Any, db: str
) -> None:
    ended = call(*arguments, "--db", db)
    assert ended.code == 2
    assert told in " ".join(ended.err.replace("│", "").split())


def test_runs_are_watched_once_where_there_is_no_terminal(call: Any, db: str) -> None:
    ended = call("runs", "--watch", "--db", db)
    assert ended.code == 0
    heading, row = ended.out.splitlines()
    assert heading.split()[-2:] == ["trials/min", "left"]
    assert row.split()[:5] == ["1", "two", "finished", "2/2", "1"]


def test_the_driver_of_a_run_is_told_in_json(call: Any, tmp_path: Path) -> None:
    db = str(tmp_path / "driven.db")
    with ResultStore.open(db, create=True) as store:
        driver = Driver.here()
        store.begin_run(
            suite=Suite(name="one", cases=(stored_runs.case(),), repeats={"infer": 1}),
            source="",
            command="",
            planned=1,
            driver=driver,
        )
    (run,) = json.loads(call("runs", "--db", db, "--json").out)
    assert run["driver"]["uid"] == driver.uid


def test_a_trial_is_shown_in_full(call: Any, db: str) -> None:
    out = call("show", "--trial", "2", "--db", db).out
    for part in ("it [broke]", "Traceback: here", "tlbench run again-1", "ViT-Ti/16"):
        assert part in out
    shown = json.loads(call("show", "--trial", "2", "--db", db, "--json").out)
    assert (shown["seed"], shown["command"]) == (9, "tlbench run again-1")


@pytest.mark.parametrize("arguments", [("show", "7"), ("show", "--trial", "7")])
def test_what_is_not_stored_is_an_error(
    arguments: tuple[str, ...], call: Any, db: str
) -> None:
    ended = call(*arguments, "--db", db)
    assert ended.code == 1
    assert "7" in ended.err


def test_a_report_is_written_and_its_path_printed(
    call: Any, db: str, tmp_path: Path
) -> None:
    ended = call("report", "two.html", "--db", db)
    assert (ended.code, ended.out) == (0, "two.html\n")
    assert "ViT-Ti/16+TL8@6" in (tmp_path / "two.html").read_text()


@pytest.fixture
def two_models(tmp_path: Path) -> str:
    """A database with a run of a model and of one twice as fast, and a third."""
    location = str(tmp_path / "compared.db")
    with ResultStore.open(location, create=True) as store:
        stored_runs.StoredRuns(store).add(
            (stored_runs.case("ViT-Ti/16"), stored_runs.speeds(100, 101, 99)),
            (stored_runs.case("ViT-Ti/16+TL8@6"), stored_runs.speeds(200, 202, 198)),
            (stored_runs.case("ViT-Ti/16+TL2@6"), stored_runs.speeds(50, 400, 10)),
        )
    return location


def test_compare_tells_ratio_and_verdict(call: Any, two_models: str) -> None:
    ended = call("compare", "model=ViT-Ti/16", "model~TL8", "--db", two_models)
    assert ended.code == 0, ended.err
    (row,) = [x for x in ended.out.splitlines() if x.rstrip().endswith("better")]
    assert row.split()[-5:] == [f"2.00{TIMES}", "2.00", "to", "2.00", "better"]
    told = json.loads(
        call(
            *("compare", "model=ViT-Ti/16", "model~TL8"), "--db", two_models, "--json"
        ).out
    )
    assert told["comparisons"][0]["ratio"] == pytest.approx(2)
    assert told["level"] == 0.95


def test_a_verdict_that_the_gate_names_ends_with_4(call: Any, two_models: str) -> None:
    """At the gate's level, unless another is asked for."""
    sides = ("compare", "model=ViT-Ti/16", "model~TL8", "--db", two_models, "--json")
    assert call(*sides, "--fail-on", "worse").code == 0
    ended = call(*sides, "--fail-on", "better", "--fail-on", "worse")
    assert ended.code == 4
    assert json.loads(ended.out)["level"] == 0.99
    ended = call(*sides, "--fail-on", "better", "--level", "0.9")
    assert json.loads(ended.out)["level"] == 0.9


def test_compare_writes_for_ci(call: Any, two_models: str, tmp_path: Path) -> None:
    sides = ("compare", "model=ViT-Ti/16", "model~TL", "--db", two_models)
    ended = call(*sides, "--junit", "junit.xml", "--markdown", "-")
    assert ended.code == 0
    assert ended.out.startswith("### tlbench compare\n")
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("tests") == "2"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("model~TL", "3"), 1, "there is no run 3; there are 1"),
        (("mode=infer", "ViT"), 1, "'ViT' is not understood"),
        (("1", "1", "--fail-on", "wrose"), 2, "did you mean 'worse'"),
        (("1", "1", "--iso", "memory=2"), 1, "memory or memory=2GiB would be right"),
        (("1", "1", "--json", "--junit", "-"), 2, "cannot both go to stdout"),
        (("1", "1", "--markdown", "absent/a.md"), 1, "there is no folder"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(
    call: Any, two_models: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = call("compare", *arguments, "--db", two_models)
    assert (ended.code, ended.out) == (code, "")
    assert message in " ".join(ended.err.replace("│", " ").split())


def test_a_case_that_a_whole_run_lacks_ends_with_the_gates_code(
    call: Any, tmp_path: Path
) -> None:
    location, plain = str(tmp_path / "gate.db"), stored_runs.case("ViT-Ti/16")
    steady = stored_runs.speeds(100, 100.1, 99.9)
    with ResultStore.open(location, create=True) as store:
        runs = stored_runs.StoredRuns(store)
        runs.add((plain, steady), (stored_runs.case("ViT-Ti/16+TL8@6"), steady))
        runs.add((plain, steady))
    sides = ("compare", "1", "2", "--db", location)
    assert call(*sides).code == 0
    ended = call(*sides, "--fail-on", "worse")
    assert ended.code == 4
    assert "only in A: infer ViT-Ti/16+TL8@6" in ended.out


def test_what_cannot_be_extended_is_told_first_all_the_same(
    call: Any, two_models: str
) -> None:
    """Its trials ran on another machine than this."""
    sides = ("compare", "model=ViT-Ti/16", "model~TL", "--db", two_models)
    ended = call(*sides, "--extend", "--json", "--junit", "junit.xml")
    assert (ended.code, ended.out) == (1, "")
    told, _, refusal = ended.err.partition("error: --extend: ")
    assert "inconclusive" in told
    assert "ran on another machine than this" in refusal
    assert Path("junit.xml").exists()


@pytest.mark.parametrize("budget", ["20", "0s", "soon"])
def test_a_budget_without_sense_starts_nothing(
    call: Any, tmp_path: Path, budget: str
) -> None:
    ended = call("run", "smoke", "--budget", budget)
    assert ended.code == 2
    assert "would be right" in " ".join(ended.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_budget_in_which_nothing_begins_is_an_error(call: Any) -> None:
    """Before Ray is started, of which stderr would tell."""
    ended = call("run", "smoke", "--budget", "1s", "--json")
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert re.fullmatch(
        r"error: a budget of 1\.00 s pays for no trial: the shortest, infer mini\S*,"
        r" takes about \d\.\d\d s",
        line,
    )


def test_a_database_of_today_needs_no_upgrade(call: Any, db: str) -> None:
    ended = call("db", "upgrade", "--db", db)
    assert ended.code == 0
    assert "already" in ended.out


def test_a_run_that_cannot_write_its_report_starts_nothing(
    call: Any, tmp_path: Path
) -> None:
    ended = call("run", "smoke", "--report", "absent/report.html")
    assert ended.code == 1
    assert "absent" in ended.err
    assert list(tmp_path.iterdir()) == []


MANY_MODELS = "ViT-Ti/16+TL{1,2,3,4,5,6,7,8}@{0,1,2,3,4,5,6,7,8,9,10,11}"


@pytest.mark.parametrize(
    "arguments",
    [("models", MANY_MODELS, "--json"), ("suites",)],
    ids=["much_json", "little"],
)
def test_a_reader_that_goes_away_leaves_no_traceback(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tlbench", *arguments],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 1


def test_a_bug_of_ours_keeps_its_traceback(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("tlbench.cli.models.print_json", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        call("suites", "--json")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/r", "postgresql://me:***@host:5432/r"),
        ("postgresql://me:sec/ret@host/r", "postgresql://me:***@host/r"),
        ("postgresql://me:sec@ret@host/r", "postgresql://me:***@host/r"),
        ("postgresql://me@host:5432/r", "postgresql://me@host:5432/r"),
        (
            "postgresql://host/r?user=me&password=secret&connect_timeout=3",
            "postgresql://host/r?user=me&password=***&connect_timeout=3",
        ),
    ],
)
def test_stored_command_holds_no_password(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["tlbench", "run", "smoke", f"--db={url}"])
    assert shlex.split(options.command_line())[-1] == f"--db={shown}"


def test_models_counts_what_a_builder_makes(call: Any, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        "def build(model, depth):\n    del model.blocks[depth:]\n    return model\n"
    )
    counted = call("models", "ViT-Ti/16+my.py:build(depth={1,2})", "--json")
    (one, two) = json.loads(counted.out)
    assert one["macs"] == cost.macs(parse_model("ViT-Ti/16[1]"), 1000)
    assert two["macs"] == cost.macs(parse_model("ViT-Ti/16[2]"), 1000)
    (line,) = call("models", "ViT-Ti/16+tome(r=0)").out.splitlines()[1:]
    (plain,) = call("models", "ViT-Ti/16").out.splitlines()[1:]
    cells, expected = line.split(), plain.split()
    assert cells[:-1] == ["ViT-Ti/16+tome(r=0)", *expected[1:6]]
    assert cells[-1] == UNKNOWN  # only its code knows the tokens


def test_models_says_why_a_builders_model_has_no_count(
    call: Any, tmp_path: Path
) -> None:
    (tmp_path / "my.py").write_text(
        "def build(model):\n"
        "    model.register_forward_pre_hook(lambda _, x: float(x[0].sum()))\n"
        "    return model\n"
    )
    ended = call("models", "ViT-Ti/16+my.py:build")
    assert ended.code == 0
    _, row, reason = ended.out.splitlines()
    assert row.split() == ["ViT-Ti/16+my.py:build", "5,717,032", *[UNKNOWN] * 3]
    assert reason.startswith(
        "'ViT-Ti/16+my.py:build' cannot be run on the meta device: my.py:2: Runtime"
    )


def test_an_unknown_builder_is_wrong_usage(call: Any) -> None:
    ended = call("models", "ViT-Ti/16+tomee(r=8)")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("; did you mean 'tome'?\n")
