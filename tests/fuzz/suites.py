"""Does every suite, however malformed, end in a suite or in one clear error?

    python tests/fuzz/suites.py --count 10000 --seed 1

Each is loaded in a process with a limit of its memory. One that is accepted is planned,
and the suites that repeat its trials are read back to the same case. Every fiftieth
goes through the commands too.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from campaign import Verdict, main
from suite_files import in_odd_place
from suite_texts import from_schema, hostile_yaml, mangled
from tlbench.errors import SuiteError
from tlbench.plan import describe, forecast, order_trials
from tlbench.suites.loader import load_suite, parse_suite, repeat_suite
from tlbench.suites.spec import Suite

CPU_LIMIT_S = 5.0
"""Of reading one suite; of ordering its trials, a million at most, twice that."""
COMMAND_LIMIT_S = 120.0
ONE_OF_COMMANDS = 50
MOST_FORECAST = 100
"""Cases of one suite; a model of 1,000 blocks takes 40 ms."""
MOST_REPEATED = 20
"""Trials of one suite that are repeated."""
MOST_LINES, MOST_CHARACTERS = 21, 10_000  # a path is shown whole
FLOPS_PER_S = 1e11
TEXTS: dict[str, Callable[[Random], bytes]] = {
    "by the schema": from_schema,
    "mangled": mangled,
    "hostile YAML": hostile_yaml,
}
KINDS = (*["by the schema"] * 9, *["mangled"] * 7, *["hostile YAML"] * 3, "odd files")
INTERNALS = re.compile(
    r"Traceback|<class |object at 0x|errors\.pydantic\.dev|input_value"
)
UNREADABLE = re.compile(
    r"is neither a file nor a built-in suite|cannot be read|is larger than 1 MiB"
)


def attempt(seed: int, number: int, folder: Path) -> Verdict:
    rng = Random(f"{seed}/{number}")
    kind = rng.choice(KINDS)
    if kind == "odd files":
        source = str(in_odd_place(folder, rng))
    else:
        file = folder / "suite.yaml"
        file.write_bytes(TEXTS[kind](rng))
        source = str(file)
    before = _everything_in(folder)
    violations: list[str] = []
    suite = _loaded(source, violations)
    if suite is not None:
        violations += _wrong_with_plan(suite)
        violations += _wrong_with_repeats(suite, rng, folder)
    if number % ONE_OF_COMMANDS == 0:
        violations += _wrong_with_commands(source, suite is not None, folder)
    if _everything_in(folder) != before:
        violations.append("something was written beside the suite")
    return Verdict(kind, "refused" if suite is None else "accepted", tuple(violations))


def _everything_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What lies there: the kind of each, and the content of files."""
    return {
        str(path): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def _watched(what: str, limit_s: float, violations: list[str]) -> Iterator[None]:
    """CPU time, not the clock's: other work on the machine is no fault of the suite."""
    start = time.process_time()
    yield
    took = time.process_time() - start
    if took > limit_s:
        violations.append(f"{what} took {took:.1f} s")


def _loaded(source: str, violations: list[str]) -> Suite | None:
    try:
        with _watched("reading", CPU_LIMIT_S, violations):
            return load_suite(source)
    except SuiteError as error:
        violations += _wrong_with_message(str(error), source)
        return None


def _wrong_with_message(message: str, source: str) -> list[str]:
    lines = message.split("\n")
    shown = source if source.isprintable() else repr(source)
    place = re.compile(re.escape(shown) + r":(\d+: .|.*( more of the kind|1 MiB))")
    wrong = []
    if not (all(map(place.match, lines)) or UNREADABLE.search(lines[0])):
        wrong.append(f"says no place: {message[:300]!r}")
    if INTERNALS.search(message):
        wrong.append(f"shows what is inside: {message[:300]!r}")
    if not all(line.isprintable() for line in lines):
        wrong.append(f"holds what no terminal should get: {message[:300]!r}")
    if len(lines) > MOST_LINES or max(map(len, lines)) > MOST_CHARACTERS:
        wrong.append(f"is too long: {len(message)} characters, {message[:300]!r}")
    return wrong


def _wrong_with_plan(suite: Suite) -> list[str]:
    violations: list[str] = []
    with _watched("ordering the trials", 2 * CPU_LIMIT_S, violations):
        order_trials(suite)
    few = suite.model_copy(update={"cases": suite.cases[:MOST_FORECAST]})
    with _watched("forecasting", 2 * CPU_LIMIT_S, violations):
        for case in forecast(few, {}, FLOPS_PER_S):
            json.dumps(describe(case))
    stored = json.dumps(suite.model_dump(mode="json"))
    if Suite.model_validate_json(stored) != suite:
        violations.append("does not come back as it was stored")
    return violations


def _wrong_with_repeats(suite: Suite, rng: Random, folder: Path) -> list[str]:
    trials = order_trials(suite)
    wrong = []
    for trial in rng.sample(trials, min(MOST_REPEATED, len(trials))):
        text = json.dumps(repeat_suite(trial, suite.trial_timeout_s))
        again = parse_suite(text, "repeat", folder)
        if [case.identity for case in again.cases] != [trial.case.identity]:
            wrong.append(f"repeats another case: {text[:500]}")
    return wrong


def _wrong_with_commands(source: str, is_accepted: bool, folder: Path) -> list[str]:
    """`plan`, and `run` of what is refused, which is to end before anything begins."""
    if "\0" in source or source.startswith("-"):  # no argument of a command
        return []
    wrong = []
    for command in ("plan", "run") if not is_accepted else ("plan",):
        words = [sys.executable, "-m", "tlbench", command, source, "--db", "results.db"]
        ended = subprocess.run(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        errors = ended.stderr.decode(errors="replace")
        is_clear = all(line.startswith("error: ") for line in errors.splitlines())
        code = 0 if is_accepted else 2
        if ended.returncode != code or not is_clear or bool(errors) == is_accepted:
            wrong.append(f"{command} ends with {ended.returncode}: {errors[-2000:]}")
        if (folder / "results.db").exists():
            wrong.append(f"{command} makes a database")
    return wrong


if __name__ == "__main__":
    sys.exit(main(attempt, __doc__ or "", count=10_000))
