"""What is stored of a trial whose process could not tell itself what became of it."""

import pytest
from ray.exceptions import (
    ActorDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayTaskError,
)

from tlbench.cluster.workers import failure

STORE_FULL = (
    "Ray's object store was full, and could not be written to disk: its result could"
    " not be brought back"
)


def raised_in_worker(cause: Exception) -> Exception:
    """As `ray.get` raises it here: of both types."""
    error: Exception = RayTaskError("run", "its stack", cause).as_instanceof_cause()
    return error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (
            ActorDiedError(),
            "lost",
            "its process died: killed, crashed, or out of host memory",
        ),
        (
            OutOfMemoryError("much"),
            "oom",
            "Ray ended its process: the node's memory was full",
        ),
        (ObjectStoreFullError("x"), "lost", STORE_FULL),
        (raised_in_worker(OutOfDiskError("x")), "lost", STORE_FULL),
        (raised_in_worker(ValueError("of two\nlines")), "error", "ValueError: of two"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures_have_a_status_and_a_reason(
    error: Exception, status: str, reason: str
) -> None:
    found = failure(error)
    assert (found.status, found.reason) == (status, reason)
    assert found.traceback
