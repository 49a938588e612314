"""The errors that tlbench raises for its users to read.

TlbenchError
├── SuiteError     what was asked for cannot be read or makes no sense
├── ClusterError   Ray cannot be started, joined, or can never hold the trial
├── TrialError     a trial cannot do what its case asks for on this machine
├── StoreError     the result database cannot be opened, read or written
└── ReportError    a report cannot be made from what is stored
"""


class TlbenchError(Exception):
    """Something the user can put right; the message says how."""


class SuiteError(TlbenchError):
    """A suite, a setting or a model name that cannot be read or makes no sense."""


class ClusterError(TlbenchError):
    """Ray cannot be started or joined, or can never hold what a trial needs."""


class TrialError(TlbenchError):
    """A trial cannot do what its case asks for on the machine it was placed on."""


class StoreError(TlbenchError):
    """The result database cannot be opened, read or written."""


class ReportError(TlbenchError):
    """A report cannot be made from what is stored."""
