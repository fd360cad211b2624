"""Drills as tasks."""

from __future__ import annotations

import logging
from typing import Any

SHOWN = ("works_s", "caught_up_s", "another_primary_s", "write_outage_s", "acknowledged", "lost")


def drilled(service: str, fault: str, dag_run: Any) -> dict[str, Any]:
    """Do the drill, keep its evidence also when it fails, and return its figures."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.drills.cluster import DrillError
    from include.drills.run import Drill, own
    from include.platform.evidence import write_evidence
    from shudl.endpoints import endpoints, is_external

    reached = endpoints()
    try:
        own(reached, service, is_external)
    except DrillError as error:
        raise AirflowFailException(str(error)) from None
    drill = Drill(service, fault, reached, logging.getLogger("airflow.task").info)
    try:
        drill.run()
    finally:
        write_evidence(dag_run.dag_id, f"{dag_run.run_id}-{service}", drill.evidence)
    return {name: drill.evidence[name] for name in SHOWN if name in drill.evidence} | {
        "verdict": drill.evidence["proof"]["verdict"]
    }
