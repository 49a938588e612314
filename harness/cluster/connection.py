"""Starting a Ray of our own, or joining one."""

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
from ray._private import ray_constants, services
from ray._private.state import available_resources_per_node
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of Cython
from ray.exceptions import RayError

from tlbench.cluster.members import Members
from tlbench.cluster.software import pack
from tlbench.errors import ClusterError, first_line

QUIET_RAY = {
    "worker_niceness": 0,
    "enable_metrics_collection": False,
    "event_stats": False,
    "memory_monitor_refresh_ms": 1000,
    "metrics_report_interval_ms": 600_000,
}
"""A Ray of our own looks up from its sleep seldom, since each look halts a thread of a
measurement; and its workers are not nicer to other processes than a plain one is."""
CONNECT_TIMEOUT_S = 5.0
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[Members]:
    """Start a Ray of our own, or join one; leave it again at the end.

    Raises:
        ClusterError: It cannot be, or its nodes cannot be compared with each other.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "600000")
    # Ray puts the driver's current folder first on the path of the workers, where a
    # user's own `db` or `reports` would shadow other people's modules.
    with tempfile.TemporaryDirectory(prefix="tlbench-") as neutral:
        try:
            with contextlib.chdir(neutral):
                _connect(address)
                members = Members() if address is None else Members.of_joined()
                if members.lack_our_code:
                    ray.shutdown()
                    with tempfile.TemporaryDirectory(prefix="tlbench-") as folder:
                        _connect(address, py_modules=pack(Path(folder)))
            yield members
        finally:
            ray.shutdown()


def _connect(address: str | None, py_modules: Sequence[str] = ()) -> None:
    if address:
        _use_token()
    try:
        if address:
            _show_token(address)
        with contextlib.nullcontext() if address else _on_loopback():
            ray.init(
                # A bare init() would join whatever cluster was started here before.
                address=address or "local",
                _node_ip_address=None if address else LOOPBACK,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"py_modules": list(py_modules)} if py_modules else None,
                _system_config=None if address else QUIET_RAY,
            )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        if not address:
            raise ClusterError(f"cannot start Ray on this machine: {reason}") from error
        raise ClusterError(
            f"cannot join Ray at {address}: {reason}; it must be running there, and"
            " this shell must hold its token (RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH)"
        ) from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray of our own listen on loopback alone, as it does on macOS and Windows.

    Elsewhere Ray puts the machine's address in the place of a loopback one, and then
    listens on all addresses.
    """
    default = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = default


def _show_token(address: str) -> None:
    """Find out at once whether the token is right: `ray.init` would try for 20 s."""
    if address == "auto":  # Ray finds the place
        return
    place = services.canonicalize_bootstrap_address(address)
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection(
            (host.strip("[]"), int(port)), CONNECT_TIMEOUT_S
        ).close()
    except OSError:  # nobody there; `ray.init` says so
        return
    GcsClient(address=place)


def _use_token() -> None:
    """Present the token of this machine, as Ray by itself does for `auto` only."""
    try:
        from ray._private.authentication import authentication_token_setup
    except ImportError:  # Ray knows tokens since 2.60
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would praise the token
    authentication_token_setup.maybe_enable_token_auth_if_token_available(
        warn_if_disabled=False
    )


def free_resources() -> dict[str, dict[str, float]]:
    """What nobody holds, by node and by name; it may lag by some 100 ms."""
    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def is_own_node_alive() -> bool:
    """Whether the Ray of this machine, which brings results here, is still there."""
    own = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == own and node["Alive"] for node in ray.nodes())
