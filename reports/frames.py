"""Tidy pandas frames: one row a trial, and one row a case."""

from collections.abc import Sequence

import pandas as pd

from tlbench.reports.cases import CaseTrials
from tlbench.reports.tidy import case_rows, trial_rows


def trial_frame(cases: Sequence[CaseTrials]) -> pd.DataFrame:
    """One row a trial: where it stands, its settings, and its metrics as columns."""
    return pd.DataFrame(trial_rows(cases))


def case_frame(cases: Sequence[CaseTrials]) -> pd.DataFrame:
    """One row a case: each metric's median, and `.low`, `.high` and `.n` beside it."""
    return pd.DataFrame(case_rows(cases))
