"""Writing to a database that may be away for a while."""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from tlbench.errors import StoreAwayError

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long a result is offered to a database that does not take it."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0


def patiently(
    write: Callable[[], T], limit_s: float = PATIENCE_S
) -> Generator[str, None, T]:
    """Write, and again while the database is away; returns what `write` does.

    Yields each new reason why it has to be done again. What is written must do no harm
    when it is written twice, for the answer to a first time may have been lost.

    Raises:
        StoreAwayError: It was away for longer than `limit_s` seconds.
    """
    deadline, wait_s, told = time.monotonic() + limit_s, FIRST_WAIT_S, ""
    while True:
        try:
            return write()
        except StoreAwayError as error:
            if time.monotonic() + wait_s > deadline:
                raise
            if str(error) != told:
                told = str(error)
                yield told
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
