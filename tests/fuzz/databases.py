"""Does every command read a damaged database, or say in one sentence that it cannot?

    python tests/fuzz/databases.py --count 1000 --seed 1

Each file is given to the commands that read, in a process with a limit of its memory.
Then it has to be what it was, byte for byte. With a log or journal beside it there is
one more thing that it may be: what SQLite alone makes of a copy, opened and closed.
A run into it is begun only as far as opening it; where that is refused, it too must
leave the file alone. For every eighth file the commands are processes of their own.
"""

import io
import resource
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import NamedTuple

from campaign import Verdict, main
from damage import KINDS, SIDE_FILES, lay_damaged, lay_no_file, opened_and_closed
from tlbench import cli
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError

CPU_LIMIT_S = 20.0
"""Of one command; the report of a sound database of the gallery takes 4 s."""
COMMAND_LIMIT_S = 120.0
ONE_OF_PROCESSES = 8
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("runs", "runs --json"),
    ("show", "show 1 --json", "show --trial 3", "show --trial 2 --json"),
    (*["report -"] * 6, "report report.html"),
    (
        "query",
        "query status=ok --format csv --columns *",
        "query --group-by model,data",
    ),
    ("compare mode=infer,model=ViT-B/16 mode=infer,model~TL", "compare 1 2"),
    ("trend 1", "trend run=1 --json"),
    ("claims", "plan smoke"),
    ("db check", "db check --json"),
    (
        "db export - --format csv",
        "db export - --format jsonl --table metrics",
        "db export - --format jsonl --table machines",
        "db export - --format csv --table runs",
        "db export - --format csv --table steps",
    ),
)
"""One way of each command is tried on each file."""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def attempt(seed: int, number: int, folder: Path) -> Verdict:
    rng = Random(f"{seed}/{number}")
    file = folder / "results.db"
    kind = rng.choice((*KINDS, "no file"))
    if kind == "no file":
        lay_no_file(rng, file)
        right: set[bytes | None] = {_content(file)}
    else:
        files = lay_damaged(rng, kind, file)
        right = {files[""]}
        if any(files.get(ending) for ending in SIDE_FILES):
            right.add(opened_and_closed(files))
    commands = [tuple(rng.choice(ways).split()) for ways in COMMANDS]
    outcomes, violations = set(), []
    for words in commands:
        outcome, wrong = _tried(words, file)
        outcomes.add(outcome)
        if _content(file) not in right:
            wrong.append("changes the file")
        violations += [f"{' '.join(words)}: {text}" for text in wrong]
    violations += _wrong_with_run(file, right, number)
    if number % ONE_OF_PROCESSES == 0:
        words = rng.choice(commands)
        wrong = _wrong_with_end(words, _process(words, file))
        violations += [f"process {' '.join(words)}: {text}" for text in wrong]
    outcome = "some are read" if outcomes == {"read", "refused"} else "".join(outcomes)
    return Verdict(kind, outcome, tuple(violations))


def _content(file: Path) -> bytes | None:
    """The bytes of the database; None where there is no plain file."""
    return file.read_bytes() if file.is_file() else None


def _tried(words: tuple[str, ...], file: Path) -> tuple[str, list[str]]:
    """Whether a command reads the file, and what is wrong with how it ends."""
    start = time.process_time()
    try:
        ended = _called(words, file)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-6:]]
        return "refused", [f"raises {error!r:.200} at {' '.join(place)}"]
    took = time.process_time() - start
    wrong = _wrong_with_end(words, ended)
    if took > CPU_LIMIT_S:
        wrong.append(f"took {took:.0f} s")
    return "refused" if ended.code else "read", wrong


def _called(words: tuple[str, ...], file: Path) -> Ended:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.StringIO()
    sys.argv = ["tlbench", *words, "--db", str(file)]
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
    written = out.buffer.getvalue().decode()
    return Ended(int(str(code)), written, err.getvalue())


def _process(words: tuple[str, ...], file: Path) -> Ended:
    ended = subprocess.run(
        [sys.executable, "-m", "tlbench", *words, "--db", str(file)],
        capture_output=True,
        encoding="utf-8",
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def _wrong_with_end(words: tuple[str, ...], ended: Ended) -> list[str]:
    if ended.code == 0:
        return []
    is_check = words[:2] == ("db", "check") and not ended.err
    if is_check and ended.code == 1 and "damaged" in ended.out:
        return []
    is_sentence = ended.err.startswith("error: ") and ended.err.count("\n") == 1
    if ended.code == 1 and is_sentence and ended.err[:-1].isprintable():
        return []
    return [f"ends with {ended.code}: {ended.err[-1500:]!r}"]


def _wrong_with_run(file: Path, right: set[bytes | None], number: int) -> list[str]:
    """`run` opens a database for writing first; here nothing more is written."""
    before = _content(file)
    try:
        ResultStore.open(str(file), create=True).close()
    except StoreError:
        wrong = [] if _content(file) in right else ["opening to write changes the file"]
        if number % ONE_OF_PROCESSES == 0:
            words = ("run", "smoke")
            wrong += [
                f"run: {text}" for text in _wrong_with_end(words, _process(words, file))
            ]
            if _content(file) not in right:
                wrong.append("run changes the file")
        return wrong
    except Exception as error:
        return [f"opening to write raises {error!r:.300}"]
    if before and _content(file) in (None, b""):
        return ["opening to write empties the file"]
    return []


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.exit(main(attempt, __doc__ or "", count=1000))
