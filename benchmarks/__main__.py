"""``python -m benchmarks NAME``: run one benchmark; without a name, list them."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime

from benchmarks.machine import facts
from include.cli.console import complain, say
from include.platform.evidence import write_evidence

NAMES = (
    *("demo", "bootstrap", "freshness", "proof", "copy", "dbt"),
    *("ingest_connector", "ingest_kafka", "landing_csv", "landing_small"),
)


def main() -> int:
    wanted = sys.argv[1:]
    if len(wanted) != 1 or wanted[0] not in NAMES:
        for name in NAMES:
            say(f"[bold]{name:<18}[/]{(importlib.import_module(f'benchmarks.{name}').__doc__ or '').splitlines()[0]}")
        if wanted:
            complain(f"{' '.join(wanted)}: no such benchmark")
        return 2 if wanted else 0
    figures = importlib.import_module(f"benchmarks.{wanted[0]}").measure()
    run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    path = write_evidence(f"benchmark_{wanted[0]}", run, {"machine": facts(), **figures})
    say(f"Kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
