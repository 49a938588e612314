"""Clusters of several Ray nodes on this machine, beside any other that runs here.

Each node is one raylet: all on the loopback, or each in a network namespace with an
address of its own. What a test has started is ended process by process.
"""

import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from sqlalchemy.orm import Session

from tlbench.cluster.software import pack
from tlbench.db import query
from tlbench.db.query import TrialRecord
from tlbench.db.store import ResultStore

STARTED = "Ray runtime started."
"""What `ray start` prints once the node has joined."""
ENDING_TIMEOUT_S = 20
MEETING_TIMEOUT_S = 120
RUN_TIMEOUT_S = 240
TLBENCH = Path(sys.executable).parent / "tlbench"
DB = "results.db"
WORKER = "ray::Worker.run"
"""What Ray calls a process of ours while it measures."""
OBJECT_STORE_BYTES = 80 * 2**20
QUICK_DETECTION = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Lets the head call a silent node dead after some 6 s; by Ray's defaults that takes
up to a minute."""
PORTS = ("dashboard-agent-listen-port", "min-worker-port", "max-worker-port")
"""What Ray, unless asked to choose, gives the same numbers on every node."""
SUBNET = "10.201.0"
"""Of the namespaces: nobody but they sees it."""

Environment = Mapping[str, str]
NOTHING: Environment = {}
NO_NODE: Mapping[int, Environment] = {}

_serial = itertools.count()


class Node:
    """One raylet with its workers; that of the head with Ray's control store too."""

    def __init__(self, address: str, prefix: Sequence[str] = ()) -> None:
        self.address = address
        """Its IP address."""
        self.prefix = tuple(prefix)
        """The command that runs another one where this node is."""
        self._process: subprocess.Popen[str] | None = None
        self._seen: set[psutil.Process] = set()

    def start(self, options: Sequence[str], environment: Environment) -> None:
        """Start it, and wait until it has joined."""
        words = ["-u", "-m", "ray.scripts.scripts", "start", "--block", *options]
        words += [f"--node-ip-address={self.address}"]
        words += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        words += ["--disable-usage-stats"]
        words += [f"--{port}=0" for port in PORTS]
        self._process = subprocess.Popen(
            [*self.prefix, sys.executable, *words],
            env={**environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        told = []
        for line in _lines(self._process):
            told.append(line)
            if STARTED in line:
                return
        raise AssertionError(f"no node came up at {self.address}: {''.join(told)}")

    def kill_raylet(self) -> None:
        """Kill it as the kernel would; its workers end by themselves."""
        (raylet,) = (p for p in self._look() if p.is_running() and p.name() == "raylet")
        raylet.kill()

    def connections(self) -> set[tuple[str, str]]:
        """Both ends of each connection of its ranks that run."""
        found = set()
        for process in self._look():
            # A rank may end meanwhile.
            with suppress(psutil.Error, OSError):
                if process.cmdline()[:1] == [WORKER]:
                    found |= _connections(Path(f"/proc/{process.pid}"))
        return found

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait until the node has ended by itself."""
        assert self._process is not None
        self._process.communicate(timeout=timeout_s)

    def end(self) -> None:
        """End all of its processes at once."""
        found = self._look()
        for process in found:
            if process.is_running():  # and nobody else has its id by now
                process.kill()
        if self._process is not None:
            self._process.communicate(timeout=ENDING_TIMEOUT_S)
        psutil.wait_procs(found, ENDING_TIMEOUT_S)

    def _look(self) -> set[psutil.Process]:
        """Its processes, and those there were: a raylet's end makes them orphans."""
        if self._process is not None and self._process.poll() is None:
            own = psutil.Process(self._process.pid)
            self._seen |= {own, *own.children(recursive=True)}
        return self._seen


def _connections(process: Path) -> set[tuple[str, str]]:
    """Of psutil these would be what the test's own namespace has."""
    sockets = {str(fd.readlink()) for fd in (process / "fd").iterdir()}
    lines = (process / "net" / "tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {(row[1], row[2]) for row in rows if f"socket:[{row[9]}]" in sockets}


def _lines(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


class Nodes:
    """A cluster, the head first."""

    def __init__(self, nodes: Sequence[Node], port: int, *, cpus: int) -> None:
        self._nodes = nodes
        self.address = f"{nodes[0].address}:{port}"
        """What `tlbench run --address` takes."""
        self.environment: dict[str, str] = {}
        """Of the nodes, and of whoever joins them."""
        self.of_node: Mapping[int, Environment] = {}
        """What single nodes and their workers have besides."""
        self._port, self._cpus = port, cpus
        self._commands: list[subprocess.Popen[str]] = []

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    def wait_until_ranks_have_met(self, first: int, second: int) -> None:
        """Wait until a rank on one node is connected to one on the other."""
        deadline = time.monotonic() + MEETING_TIMEOUT_S
        while time.monotonic() < deadline:
            theirs = self[second].connections()
            if any((far, near) in theirs for near, far in self[first].connections()):
                return
            time.sleep(0.05)
        raise AssertionError(f"ranks of nodes {first} and {second} have not met")

    def start(self, number: int) -> None:
        """Start a node, which is not there or no longer."""
        options = [f"--num-cpus={self._cpus}"]
        if number == 0:
            options += ["--head", f"--port={self._port}", "--include-dashboard=false"]
            options += [f"--temp-dir={self.environment['RAY_TMPDIR']}"]
            options += [f"--ray-client-server-port={_free_port()}"]
        else:
            options += [f"--address={self.address}"]
        environment = {**self.environment, **self.of_node.get(number, {})}
        self._nodes[number].start(options, environment)

    def command(
        self, words: Sequence[str | Path], folder: Path, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command on the head's node, in a session as on a terminal."""
        process = subprocess.Popen(
            [*self[0].prefix, *words],
            cwd=folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._commands.append(process)
        return process

    def begin_run(self, folder: Path, suite: Mapping[str, Any]) -> "Run":
        """`tlbench run` of a suite on this cluster, from the head's node."""
        (folder / "suite.yaml").write_text(json.dumps(suite))  # JSON is YAML
        words: list[str | Path] = [
            TLBENCH,
            "run",
            "suite.yaml",
            "--address",
            self.address,
        ]
        return Run(folder, self.command(words, folder, TLBENCH_DB=DB))

    def end_commands(self) -> None:
        """End what `command` has started and what goes on."""
        for process in self._commands:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=ENDING_TIMEOUT_S)


@dataclass(frozen=True)
class Run:
    """A `tlbench run` on a cluster, and what it has stored."""

    folder: Path
    process: subprocess.Popen[str]

    def wait(self) -> int:
        """Its exit code; what it printed is shown where the test fails."""
        out, err = self.process.communicate(timeout=RUN_TIMEOUT_S)
        print(out, err)
        return self.process.returncode

    @property
    def trials(self) -> list[TrialRecord]:
        with self._session() as session:
            return query.trials(session, [1])

    def series(self, trial: TrialRecord, name: str) -> tuple[float, ...]:
        with self._session() as session:
            return query.series(session, [trial.id], [name])[trial.id, name]

    @contextmanager
    def _session(self) -> Iterator[Session]:
        database = str(self.folder / DB)
        with (
            ResultStore.open(database, read_only=True) as store,
            store.session() as session,
        ):
            yield session


MODEL = {
    "name": "tiny",
    "image_size": 8,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
}
ENDLESS = {"target": 1e-9, "min_steps": 1_000_000, "max_steps": 1_000_000}
"""Timing whose steps go on for many minutes."""
TWO_NODES_THEN_ONE = {
    "models": [MODEL],
    "batch_size": 16,
    "repeats": 1,
    "seed": 2,  # which has the two ranks come first
    "retry": {"lost": 0},
    "include": [
        {
            "mode": "train",
            "parallelism": {"world_size": 2, "nodes": 2},
            "timing": ENDLESS,
        },
        {"mode": "infer", "timing": {"max_time_s": 0.3}},
    ],
}
"""A suite whose first trial holds two nodes until it is ended."""


class Namespaces(Nodes):
    """A cluster with a network namespace for each node."""

    def __init__(self, name: str, count: int, *, cpus: int) -> None:
        self._switch = f"{name}-switch"
        self._names = [f"{name}-{number}" for number in range(count)]
        prefixes = [("ip", "netns", "exec", name) for name in self._names]
        nodes = [Node(f"{SUBNET}.{n}", prefix) for n, prefix in enumerate(prefixes, 1)]
        super().__init__(nodes, port=6379, cpus=cpus)

    def cut(self, number: int) -> None:
        """Take a node off the network; both sides hear nothing of each other."""
        _ip("-n", self._switch, "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        """Put a node on the network again."""
        _ip("-n", self._switch, "link", "set", f"port{number}", "up")

    @contextmanager
    def wired(self) -> Iterator[None]:
        """The namespaces, and a switch between them in one more."""
        with ExitStack() as stack:
            for name in (self._switch, *self._names):
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "delete", name)
                _ip("-n", name, "link", "set", "lo", "up")
            in_switch = ("-n", self._switch, "link")
            _ip(*in_switch, "add", "bridge", "type", "bridge")
            _ip(*in_switch, "set", "bridge", "up")
            for number, name in enumerate(self._names):
                port = f"port{number}"
                peer = ("peer", "name", "eth0", "netns", name)
                _ip(*in_switch, "add", port, "type", "veth", *peer)
                _ip(*in_switch, "set", port, "master", "bridge", "up")
                network = f"{self[number].address}/24"
                _ip("-n", name, "address", "add", network, "dev", "eth0")
                _ip("-n", name, "link", "set", "eth0", "up")
            yield


@contextmanager
def raylets(
    count: int = 2,
    *,
    cpus: int = 1,
    has_token: bool = True,
    environment: Environment = NOTHING,
    of_node: Mapping[int, Environment] = NO_NODE,
    late: int = 0,
) -> Iterator[Nodes]:
    """Several nodes that share the loopback of this machine.

    Args:
        count: How many, the head among them.
        cpus: What each of them says that it has.
        has_token: Whether Ray asks who comes for its token.
        environment: What the nodes have besides.
        of_node: What single nodes have besides, by their numbers.
        late: How many of them, the last, the test starts by itself.
    """
    nodes = [Node("127.0.0.1") for _ in range(count)]
    cluster = Nodes(nodes, _free_port(), cpus=cpus)
    cluster.of_node = of_node
    with _started(cluster, nodes, has_token, environment, late):
        yield cluster


@contextmanager
def namespaces(
    count: int = 2,
    *,
    cpus: int = 1,
    has_token: bool = True,
    environment: Environment = NOTHING,
) -> Iterator[Namespaces]:
    """Several nodes, each in a network namespace; the arguments of `raylets`.

    The test is skipped where it may not make them.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root, and ip of iproute2")
    name = f"tlbench-{os.getpid()}-{next(_serial)}"
    cluster = Namespaces(name, count, cpus=cpus)
    nodes = [cluster[number] for number in range(count)]
    with cluster.wired(), _started(cluster, nodes, has_token, environment):
        yield cluster


@contextmanager
def _started(
    cluster: Nodes,
    nodes: Sequence[Node],
    has_token: bool,
    environment: Environment,
    late: int = 0,
) -> Iterator[None]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "disabled"}
    if has_token:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # In /tmp itself: the names of Ray's sockets may have 107 characters.
    with (
        tempfile.TemporaryDirectory(
            prefix="tl-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        ExitStack() as stack,
    ):
        cluster.environment = inherited | token | {"RAY_TMPDIR": folder, **environment}
        for number, node in enumerate(nodes):
            stack.callback(node.end)
            if number < len(nodes) - late:
                cluster.start(number)
        stack.callback(cluster.end_commands)
        yield


def fake_distribution(folder: Path, name: str, version: str) -> dict[str, str]:
    """Environment in which a Python package says that it has another version."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    return {"PYTHONPATH": str(folder)}


def changed_copy(folder: Path, module: str, added: str) -> dict[str, str]:
    """Environment in which tlbench is a copy with another source.

    Args:
        folder: Where the copy is made.
        module: Path of the file that is changed, from the package on.
        added: What stands at its end.
    """
    pack(folder)
    with (folder / "tlbench" / module).open("a") as file:
        file.write(added)
    return {"PYTHONPATH": str(folder)}


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
