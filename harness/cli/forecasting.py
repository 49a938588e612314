"""What the cases of a suite are expected to need, here or on a cluster."""

from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.plan import Forecast, forecast, matmul_flops_per_s
from tlbench.suites.spec import Suite


def forecast_suite(
    suite: Suite, store: ResultStore | None, *, is_here: bool = True
) -> list[Forecast]:
    """What each case needs; by earlier trials on such a machine if it is to run here.

    The machines of a cluster elsewhere are not known yet: those of any count.
    """
    identities, machine = [case.identity for case in suite.cases], fingerprint()
    history: dict[str, list[float]] = {}
    calibration: dict[str, float | None] = {}
    if store is not None:
        with store.session() as session:
            history = query.case_wall_times(
                session, identities, machine=machine if is_here else None
            )
            calibration = query.calibration(session, machine)
    return forecast(suite, history, matmul_flops_per_s(), calibration, machine)
