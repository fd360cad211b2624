"""The table of drills in ``docs/reliability.md``, from what the drills left as evidence.

    python -m include.drills.page [FOLDER]

takes the latest drill of each fault from ``FOLDER`` (a platform's folder of evidence; default this one's) and writes the table
anew between ``<!-- drills -->`` and ``<!-- end of drills -->``. From the container platform the folder is brought by
``docker/platform.sh compose cp airflow-scheduler:/data/evidence FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from include.platform.settings import ROOT, settings

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- drills -->", "<!-- end of drills -->"
DAGS = ("drill_postgres_failover", "drill_service")
TITLES = {
    ("postgresql", "switchover"): "PostgreSQL: switchover",
    ("postgresql", "kill"): "PostgreSQL: primary killed",
    ("standby", "kill"): "PostgreSQL: standby killed",
    ("etcd", "kill"): "etcd: a member killed",
    ("haproxy", "kill"): "HAProxy killed",
    ("s3", "kill"): "S3 killed",
    ("kafka", "kill"): "Kafka killed",
    ("registry", "kill"): "schema registry killed",
    ("nessie", "kill"): "Nessie killed",
    ("connect", "kill"): "Kafka Connect killed",
    ("flink-taskmanager", "kill"): "Flink task manager killed",
    ("trino", "kill"): "Trino killed",
    ("clickhouse", "kill"): "ClickHouse killed",
}
"""Service and fault → what the table calls it, in its order."""
HEAD = (
    "fault",
    "no write for, s",
    "works again, s",
    "the lake has everything, s",
    "acknowledged",
    "lost",
    "proof: rows unresolved",
)


def drills(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The latest drill of each service and fault that came to its end."""
    found = [json.loads(path.read_text()) for dag in DAGS for path in (folder / dag).glob("*.json")]
    whole = [drill for drill in found if "proof" in drill and "error" not in drill]
    return {(drill["service"], drill["fault"]): drill for drill in sorted(whole, key=lambda drill: drill["at"])}


def table(folder: Path) -> str:
    """Raises ValueError when there is no drill."""
    done = drills(folder)
    if not done:
        raise ValueError(f"{folder}: no evidence of a drill: run drill_postgres_failover and drill_service first")
    rows = [(*HEAD,), ("---", *("---:" for _ in HEAD[1:]))]
    for key, title in TITLES.items():
        if drill := done.get(key):
            seconds = (f"{drill[name]:.1f}" for name in ("write_outage_s", "works_s", "caught_up_s"))
            rows.append((title, *seconds, f"{drill['acknowledged']:,}", f"{drill['lost']}", f"{drill['proof']['unresolved']}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def filled(text: str, folder: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table(folder)}\n\n{END}{after}"


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else settings.evidence
    try:
        PAGE.write_text(filled(PAGE.read_text(), folder))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
