"""The drills on the whole platform, as its users start them. On demand: ``make test-ha``.

Their evidence is left in the tests' folder, from which ``python -m include.drills.page FOLDER`` makes the table of
docs/reliability.md.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.drills.page import DAGS, drills, table
from include.platform.settings import settings
from tests.compose_platform import Compose

DRILL_S = 2400
SWITCHOVER_S, KILL_S = 3, 15
FOLDER = settings.home / "drills"


def evidence(platform: Compose, dag_id: str, conf: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Run the DAG to success; what it and those before it left."""
    platform.cli("run", dag_id, "--conf", json.dumps(conf), "--timeout", str(DRILL_S), timeout_s=DRILL_S + 60)
    for dag in DAGS:
        (FOLDER / dag).mkdir(parents=True, exist_ok=True)
    platform.compose("cp", f"airflow-scheduler:/data/evidence/{dag_id}", str(FOLDER))
    return drills(FOLDER)


@pytest.mark.parametrize(("fault", "aim_s"), [("switchover", SWITCHOVER_S), ("kill", KILL_S)])
def test_postgres_fails_over(whole: Compose, fault: str, aim_s: float) -> None:
    drill = evidence(whole, "drill_postgres_failover", {"fault": fault})["postgresql", fault]
    assert drill["lost"] == 0 and drill["acknowledged"] > 0 and drill["proof"]["unresolved"] == 0
    assert drill["primaries"][0] != drill["primaries"][1]
    assert drill["write_outage_s"] < aim_s


def test_each_service_is_killed_in_turn(whole: Compose) -> None:
    done = evidence(whole, "drill_service", {})
    killed = {service: drill for (service, fault), drill in done.items() if fault == "kill" and service != "postgresql"}
    assert set(killed) == {"etcd", "haproxy", "standby", "s3", "kafka", "nessie", "connect", "flink-taskmanager"}
    assert {service: (drill["lost"], drill["proof"]["unresolved"]) for service, drill in killed.items()} == dict.fromkeys(
        killed, (0, 0)
    )
    print(table(FOLDER))
