"""A source of Airbyte's end to end: its driver is killed after a commit, its DAG goes on, and each row is there once.

The rest of what ingest is held to is on demand: ``make test-ingest``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.ingest.airbyte import extract
from include.ingest.deadletters import IngestError
from include.ingest.sources import AirbytePipeline, ingest_source
from include.ingest.stream import load
from include.platform.settings import settings
from tests.live import Platform

PIPELINE = """kind: airbyte
source: faker
connector: airbyte-source-faker
version: 7.2.1
config: {count: 300, seed: 1, parallelism: 1, records_per_slice: 100, always_updated: false}
streams:
  users: {write: dedup, table: faker_users}
  purchases: {table: faker_purchases}
"""


@pytest.fixture
def source(platform: Platform) -> Iterator[AirbytePipeline]:
    path = settings.pipelines / "faker.yml"
    path.write_text(PIPELINE)
    yield ingest_source("faker")
    path.unlink()


def test_a_source_end_to_end_with_a_kill(platform: Platform, source: AirbytePipeline) -> None:
    told = extract(source, platform.endpoints, "first")["streams"]
    assert told["users"] == {"records": 300, "misfits": 0}
    with pytest.raises(IngestError, match="ended with code"):
        load(source, platform.endpoints, "first", fault="raw.faker_purchases:after")
    platform.airflow.wait_for_dags({"ingest_faker"}, 120)
    evidence = platform.run_dag("ingest_faker", timeout_s=300)
    assert evidence is not None and evidence["extracted"]["streams"]["users"]["records"] == 0, "the cursor is kept"
    for stream, table in (("users", "raw.faker_users"), ("purchases", "raw.faker_purchases")):
        rows, ids = platform.in_lake(f"SELECT count(*), count(DISTINCT id) FROM {table}")[0]
        assert rows == ids == told[stream]["records"]
    assert evidence["loaded"]["raw.faker_purchases"]["read"] == 0, "the killed driver had committed them"
