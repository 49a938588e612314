"""The errors that tlbench raises for its users to read.

TlbenchError
├── SuiteError     what was asked for cannot be read or makes no sense
├── ClusterError   Ray cannot be started, joined, or can never hold the trial
├── TrialError     a trial cannot be brought to its end
│   ├── UnsupportedError    this machine cannot do what the case asks for
│   ├── NonFiniteLossError  training left the finite numbers
│   └── UnreadableSampleError  a stored sample is broken, too short or missing
├── UnknownCostError  the cost of a builder's model has no closed form
├── StoreError     the result database cannot be opened, read or written
│   └── StoreAwayError      it cannot just now, and may well be able to later
└── ReportError    a report cannot be made from what is stored
"""

LINE_LENGTH = 500
"""How much of a line that others wrote a reason holds; a traceback has all of it."""


class TlbenchError(Exception):
    """Something the user can put right; the message says how."""


class SuiteError(TlbenchError):
    """A suite, a setting or a model name that cannot be read or makes no sense."""


class ClusterError(TlbenchError):
    """Ray cannot be started or joined, or can never hold what a trial needs."""


class TrialError(TlbenchError):
    """A trial cannot be brought to its end."""


class UnsupportedError(TrialError):
    """The machine that a trial was placed on cannot do what its case asks for."""


class NonFiniteLossError(TrialError):
    """Training left the finite numbers."""

    def __init__(self, loss: float, step: int | None = None) -> None:
        super().__init__(loss, step)  # both survive pickling
        self.loss, self.step = loss, step

    def __str__(self) -> str:
        where = "" if self.step is None else f" at optimiser step {self.step}"
        return f"the loss is {self.loss}{where}"


class UnreadableSampleError(TrialError):
    """A stored sample is broken, too short or missing; the message says what it is."""


class UnknownCostError(TlbenchError):
    """The model is made by a builder, whose code alone knows what it costs."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.function = function

    def __str__(self) -> str:
        return f"what {self.function} builds has no closed form of its cost"


class StoreError(TlbenchError):
    """The result database cannot be opened, read or written."""


class StoreAwayError(StoreError):
    """The database cannot be reached or written just now; it may well be later."""


class ReportError(TlbenchError):
    """A report cannot be made from what is stored."""


def first_line(error: object) -> str:
    """The first line of what an error says; of a very long one the beginning."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]} ..."


def name_error(error: object) -> str:
    """The type of an error, and the first line of what it says, if it says anything."""
    return ": ".join(filter(None, (type(error).__name__, first_line(error))))
