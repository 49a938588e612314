"""Ways in: Ray jobs, Slurm, tokens; what listens meanwhile, what is told of secrets.

Every Ray here has ports and a folder of its own, and is ended by its processes.
"""

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from sqlalchemy import create_engine, inspect, text

from support import postgresql
from tlbench.db import query
from tlbench.db.connection import Location
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TIMEOUT_S = 240
JOIN_S = 30
"""How long a driver that is refused may take to say so."""

SUITE = {
    "models": [
        {
            "name": "tiny",
            "image_size": 8,
            "patch_size": 4,
            "embed_dim": 16,
            "depth": 1,
            "num_heads": 2,
            "mlp_dim": 32,
        }
    ],
    "mode": ["profile", "infer"],
    "data": "digits",
    "batch_size": 8,
    "repeats": 1,
    "timing": {"max_time_s": 0.2},
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps a head of Ray, and who joins it, to 127.0.0.1, which Ray would replace."""
ENDLESS = {"target": 1e-9, "min_steps": 1_000_000, "max_steps": 1_000_000}
"""Timing whose steps go on for many minutes."""


def write_suite(folder: Path, **changes: Any) -> None:
    """The suite of a profile and an inference, with changes; JSON is YAML."""
    (folder / "suite.yaml").write_text(json.dumps(SUITE | changes))


def stored(db: Path | str) -> tuple[RunRecord, list[TrialRecord]]:
    """The only run of a database, and its trials."""
    with (
        ResultStore.open(str(db), read_only=True) as store,
        store.session() as session,
    ):
        (run,) = query.runs(session)
        return run, query.trials(session, [run.id])


def environment(**added: str | None) -> dict[str, str]:
    """Of a shell without a token, unless one is added; None takes a variable away."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{BIN}:{os.environ['PATH']}"
    changed = kept | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"} | added
    return {k: v for k, v in changed.items() if v is not None}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"
        time.sleep(0.1)


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all that came from it, by their ids."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """A folder with `ray`, which not every environment puts beside its Python."""
    with tempfile.TemporaryDirectory(prefix="ways-") as name:
        write_program(
            Path(name) / "ray",
            f"""exec {shlex.quote(sys.executable)} -m ray.scripts.scripts "$@" """,
        )
        yield Path(name)


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Head(NamedTuple):
    """A Ray on loopback that wants a token, and takes jobs."""

    address: str
    dashboard: str
    token: str
    environment: dict[str, str]
    """That of who may use it."""

    def call(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command line as its user would."""
        return subprocess.run(
            ["bash", "-euc", command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )


@pytest.fixture(scope="module")
def head(programs: Path) -> Iterator[Head]:
    port, dashboard, token = free_port(), free_port(), secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="ways-") as folder:
        env = environment(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=token,
            PATH=f"{programs}:{BIN}:{os.environ['PATH']}",
        )
        process = subprocess.Popen(
            [
                *("ray", "start", "--head", "--block", f"--port={port}"),
                *("--num-cpus=2", f"--temp-dir={folder}", "--include-dashboard=true"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                f"--dashboard-agent-listen-port={free_port()}",
            ],
            env=env | LOOPBACK,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", token, env)
        try:
            wait_until(lambda: _takes_jobs(head, Path(folder)), "the head takes jobs")
            yield head
        finally:
            end(process)


def _takes_jobs(head: Head, folder: Path) -> bool:
    return head.call(f"ray job list --address {head.dashboard}", folder).returncode == 0


# ---------------------------------------------------------------- Ray jobs


def documented(command: str, head: Head, db: Path) -> str:
    """A command of the documentation, with this cluster and database for its own."""
    page = (ROOT / "docs/cluster.md").read_text().replace("\\\n", " ")
    found: list[str] = re.findall(rf"^{command} .*$", page, re.M)
    (line,) = found
    assert line.count("http://HEAD:8265") == 1
    return line.replace("http://HEAD:8265", head.dashboard).replace(
        "/shared/results.db", str(db)
    )


def test_a_job_of_ray_runs_a_suite_as_documented(head: Head, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    write_suite(tmp_path / "sweep")
    db = tmp_path / "results.db"
    ended = head.call(documented("ray job submit", head, db), tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run, trials = stored(db)
    assert run.status == "finished"
    assert [(t.case.mode, t.status) for t in trials] == [
        ("profile", "ok"),
        ("infer", "ok"),
    ]
    assert head.token not in ended.stdout + ended.stderr
    assert head.token.encode() not in db.read_bytes()


def test_a_job_that_is_stopped_keeps_what_is_finished(
    head: Head, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    write_suite(tmp_path / "sweep", timing=ENDLESS)
    db, name = tmp_path / "results.db", "sweep-stopped"
    submit = documented("ray job submit", head, db).replace("sweep-1", name)
    stop = documented("ray job stop", head, db).replace("sweep-1", name)
    submitted = head.call(submit.replace(" -- ", " --no-wait -- "), tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    wait_until(lambda: _has_a_trial(db), "the first trial is stored")
    ended = head.call(stop, tmp_path)
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: stored(db)[0].status != "running", "the run has ended")
    run, trials = stored(db)
    assert run.status == "interrupted"
    assert [(t.case.mode, t.status) for t in trials] == [("profile", "ok")]


def _has_a_trial(db: Path) -> bool:
    """False, too, while there is no database or no run yet."""
    with (
        contextlib.suppress(StoreError),
        ResultStore.open(str(db), read_only=True) as store,
        store.session() as session,
    ):
        return bool(query.trials(session, [run.id for run in query.runs(session)]))
    return False


# ---------------------------------------------------------------- tokens


class Ended(NamedTuple):
    process: subprocess.CompletedProcess[str]
    time_s: float


def drive(head: Head, folder: Path, token: str | None) -> Ended:
    """`tlbench run` on the cluster, by someone with this token and no other."""
    write_suite(folder)
    env = head.environment | LOOPBACK | {"HOME": str(folder)}
    del env["RAY_AUTH_MODE"], env["RAY_AUTH_TOKEN"]
    began = time.monotonic()
    ended = subprocess.run(
        ["tlbench", "run", "suite.yaml", "--address", head.address, "--db", "a.db"],
        cwd=folder,
        env=env | ({} if token is None else {"RAY_AUTH_TOKEN": token}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Ended(ended, time.monotonic() - began)


@pytest.mark.parametrize("token", [None, "f" * 64], ids=["no token", "a wrong token"])
def test_a_driver_without_the_token_is_told_so_in_one_sentence(
    head: Head, tmp_path: Path, token: str | None
) -> None:
    ended, time_s = drive(head, tmp_path, token)
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1, ended.stderr
    assert errors[0].startswith(f"error: cannot join Ray at {head.address}: ")
    assert "token" in errors[0]
    assert "Traceback" not in ended.stdout + ended.stderr
    assert time_s < JOIN_S


def test_a_driver_with_the_token_runs(head: Head, tmp_path: Path) -> None:
    ended, _ = drive(head, tmp_path, head.token)
    assert ended.returncode == 0, ended.stderr
    run, trials = stored(tmp_path / "a.db")
    assert run.status == "finished"
    assert [trial.status for trial in trials] == ["ok", "ok"]
    assert head.token not in ended.stdout + ended.stderr


# ---------------------------------------------------------------- Slurm

SLURM_JOB = """
case "$*" in
    "show hostnames node[1-2]") printf 'node1\\nnode2\\n' ;;
    "--oneliner show node node"?) echo "NodeName=$4 NodeAddr=127.0.0.${4#node}" ;;
    *) echo "scontrol: $*" >&2; exit 1 ;;
esac
"""
"""What scontrol says of a job on two nodes; all of 127.0.0.0/8 is loopback."""
SRUN = """
while [[ $1 == --* ]]; do shift; done
exec "$@" --dashboard-agent-listen-port=0
"""
"""Starts on this machine what Slurm would start on the node that is asked for."""


class Job:
    """The batch script as Slurm would start it, on two nodes that are this machine."""

    def __init__(self, folder: Path, programs: Path, *arguments: str) -> None:
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        write_program(bin_folder / "scontrol", SLURM_JOB)
        write_program(bin_folder / "srun", SRUN)
        self.id = free_port() % 20000
        # The path of a socket has room for a hundred characters.
        self.temporary = Path(tempfile.mkdtemp(prefix="ways-"))
        self.process = subprocess.Popen(
            [ROOT / "docs/cluster/slurm.sh", *arguments],
            cwd=folder,
            env=environment(
                PATH=f"{bin_folder}:{programs}:{BIN}:{os.environ['PATH']}",
                TMPDIR=str(self.temporary),
                SLURM_JOB_ID=str(self.id),
                SLURM_JOB_NODELIST="node[1-2]",
                SLURM_CPUS_PER_TASK="1",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> str:
        """What it printed."""
        return self.process.communicate(timeout=TIMEOUT_S)[0]

    def processes(self) -> list[str]:
        """Command lines of what it has left on this machine."""
        lines = (" ".join(_command_line(p)) for p in psutil.process_iter())
        return [line for line in lines if str(self.temporary) in line]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []  # it is gone


@pytest.fixture
def submit(programs: Path, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def submit(*arguments: str) -> Job:
        jobs.append(Job(tmp_path, programs, *arguments))
        return jobs[-1]

    yield submit
    for job in jobs:
        if job.process.poll() is None:
            end(job.process)
        shutil.rmtree(job.temporary)


def test_the_slurm_script_runs_a_suite_over_two_nodes(
    submit: Callable[..., Job], tmp_path: Path
) -> None:
    spread = {"world_size": 2, "nodes": 2}
    write_suite(tmp_path, mode="infer", parallelism=spread)
    job = submit("suite.yaml", "--db", "results.db")
    printed = job.wait()
    assert job.process.returncode == 0, printed
    run, trials = stored(tmp_path / "results.db")
    assert run.status == "finished"
    assert [(t.case.parallelism.nodes, t.status) for t in trials] == [(2, "ok")]
    assert job.processes() == []


def test_the_slurm_script_ends_ray_after_a_failure(submit: Callable[..., Job]) -> None:
    job = submit("no-such-suite.yaml", "--db", "results.db")
    printed = job.wait()
    assert job.process.returncode == 2, printed
    assert "no-such-suite.yaml" in printed
    assert job.processes() == []


def test_a_slurm_job_near_its_time_limit_keeps_what_is_finished(
    submit: Callable[..., Job], tmp_path: Path
) -> None:
    write_suite(tmp_path, timing=ENDLESS)
    job = submit("suite.yaml", "--db", "results.db")
    wait_until(lambda: _has_a_trial(tmp_path / "results.db"), "a trial is stored")
    job.process.send_signal(signal.SIGTERM)  # as --signal=B:TERM@300 does
    printed = job.wait()
    assert job.process.returncode == 130, printed
    run, trials = stored(tmp_path / "results.db")
    assert run.status == "interrupted"
    assert [(t.case.mode, t.status) for t in trials] == [("profile", "ok")]
    assert job.processes() == []


# ---------------------------------------------------------------- what listens


def listening(process: psutil.Process) -> set[str]:
    """Addresses at which a process and its descendants can be reached, and as what."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it is gone
            title = (member.cmdline() or [member.name()])[0].split()[0]
            for at in member.net_connections("inet"):
                is_open = at.status == psutil.CONN_LISTEN
                if is_open or (at.type == socket.SOCK_DGRAM and not at.raddr):
                    found.add(f"{at.laddr.ip} ({Path(title).name})")
    return found


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine gets there; IPv4 within IPv6 is IPv4."""
    found = ipaddress.ip_address(address.partition(" ")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_loopback


def test_a_run_of_one_machine_listens_on_loopback_alone(tmp_path: Path) -> None:
    write_suite(
        tmp_path,
        mode="train",
        parallelism={"world_size": 2},
        stack=["deepspeed", "ray"],
    )
    process = subprocess.Popen(
        ["tlbench", "run", "suite.yaml", "--db", "results.db"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    found: set[str] = set()
    while process.poll() is None:
        found |= listening(psutil.Process(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0
    assert any("raylet" in address for address in found)
    assert [address for address in sorted(found) if not is_loopback(address)] == []


# ---------------------------------------------------------------- secrets


@pytest.fixture
def database() -> Iterator[str]:
    """A new database of PostgreSQL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if postgresql.programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="ways-") as name:
        server = postgresql.PostgreSQL(Path(name))
        try:
            yield server.create("results")
        finally:
            server.stop()


def test_no_secret_is_told_or_kept(database: str, tmp_path: Path) -> None:
    write_suite(tmp_path, mode=["profile", "train"], parallelism={"world_size": 2})
    secret = secrets.token_hex(16)
    held = environment(
        RAY_AUTH_TOKEN=secret * 2,
        AWS_SECRET_ACCESS_KEY=secret,
        HF_TOKEN=secret,
        NCCL_TEST_TOKEN=secret,
        PGPASSWORD=secret,
    )
    url = database.replace("tlbench@", f"tlbench:{secret}@") + f"&password={secret}"
    told = ""
    for command in (
        ["run", "suite.yaml", "--report", "report.html"],
        ["runs"],
        ["show", "1"],
        ["show", "--trial", "2"],
        ["db", "export", "runs.csv", "--table", "runs"],
    ):
        ended = subprocess.run(
            ["tlbench", *command, "--db", url],
            cwd=tmp_path,
            env=held,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert ended.returncode == 0, ended.stderr.replace(secret, "SECRET")
        told += ended.stdout + ended.stderr
    assert "train" in told
    assert secret not in told
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 2
    assert [f.name for f in files if secret.encode() in f.read_bytes()] == []
    assert secret not in dump(url)


def dump(url: str) -> str:
    """Every value of every table."""
    engine = create_engine(Location.parse(url).url)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        rows = [
            str(row)
            for table in tables
            for row in connection.execute(text(f'SELECT * FROM "{table}"'))
        ]
    engine.dispose()
    assert any("suite.yaml" in row for row in rows)
    return "\n".join(rows)
