"""The arrival of files in the landing bucket, as an asset that starts what loads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from include.platform.endpoints import Endpoint
from shudl.endpoints import service_endpoint

POLL_S = 2.0
SLOWEST_S = 60.0
"""How often the bucket is listed: the longer a listing takes, the less often."""
DOWN_S = 10.0


class ArrivalTrigger(BaseEventTrigger):
    """Looks at the bucket for as long as it lives, and fires when a file is there that was not, or is another one.

    At its start it knows of none: what arrived while nobody looked fires then. What is due is for the DAG to say.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "shudl.landing.ArrivalTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        seen: set[tuple[str, str]] = set()
        reachable = True
        known: Endpoint | None = None
        while True:
            try:
                endpoint = await service_endpoint("s3")
                if endpoint != known:  # a client costs more than a look
                    s3, known = await asyncio.to_thread(_client, endpoint), endpoint
                now, took_s = await asyncio.to_thread(_look, s3)
            except Exception as error:  # whatever it is: the bucket may be there at the next look
                if reachable:
                    self.log.warning("the landing bucket cannot be listed: %s: %s", type(error).__name__, error)
                reachable = False
                await asyncio.sleep(DOWN_S)
                continue
            reachable = True
            if new := sorted(path for path, _ in now - seen):
                self.log.info("arrived: %s", ", ".join(new[:10]) + (f" and {len(new) - 10} more" if len(new) > 10 else ""))
                yield TriggerEvent({"files": len(new), "first": new[0]})
            seen = now
            await asyncio.sleep(min(SLOWEST_S, max(POLL_S, 5 * took_s)))


def _client(endpoint: Endpoint) -> Any:
    from include.lake.s3 import s3_client

    return s3_client(endpoint)


def _look(s3: Any) -> tuple[set[tuple[str, str]], float]:
    """Path and etag of each file, and the seconds that the listing took."""
    from include.ingest.landing_bucket import listing

    started = time.monotonic()
    return {(file.path, file.etag) for file in listing(s3)}, time.monotonic() - started


ARRIVALS = Asset("shudl://landing", watchers=[AssetWatcher(name="landing_bucket", trigger=ArrivalTrigger())])
"""Files that were put into the landing bucket."""
