"""Modes, selection and masks: changelogs hold every change once, and nothing leaves the source that should not."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from include.cdc import reconcile
from include.cdc.changelog import TOPIC_ID
from include.cdc.coverage import wait_until_covered
from include.cdc.pipelines import Pipeline, PipelineError
from include.cdc.remove import remove
from include.cdc.source import describe
from include.cdc.status import pipeline_status
from include.cdc.topics import end_offsets, topic_id
from include.lake.catalog import Lake
from include.platform.flink import JobManager
from include.platform.kafka import client_config
from include.platform.settings import settings
from include.proof import Report, prove, stores
from include.proof.report import KINDS
from tests.live import Platform

SOURCE = "modes"
PEOPLE, EVENTS = f"{SOURCE}.people", f"{SOURCE}.events"
TABLES: dict[str, dict[str, Any]] = {
    PEOPLE: {"mode": "both", "exclude": ["diary"], "mask": ["email", "phone"], "where": "region = 'EU'"},
    EVENTS: {"mode": "changelog", "columns": ["at", "kind", "amount"]},
}
HIDDEN = ("hidden-email", "hidden-phone", "hidden-diary", "hidden-payload", "hidden-region")
"""What the rows' values begin with that must stay in the source."""
SETUP = f"""
CREATE SCHEMA {SOURCE};
CREATE TABLE {PEOPLE} (id int PRIMARY KEY, name text, email text, phone varchar(80), region text NOT NULL, diary text);
INSERT INTO {PEOPLE} SELECT n, 'name ' || n, 'hidden-email-' || n, CASE WHEN n % 3 > 0 THEN 'hidden-phone-' || n END,
    CASE WHEN n % 2 = 0 THEN 'EU' ELSE 'hidden-region' END, 'hidden-diary-' || n FROM generate_series(1, 600) AS n;
CREATE TABLE {EVENTS} (at timestamptz, kind text, amount numeric(10, 2), payload text);
INSERT INTO {EVENTS} SELECT '2020-01-01', 'kind ' || n % 7, nullif(n % 5, 4), 'hidden-payload' FROM generate_series(1, 700) AS n;
"""
STORY = (
    # Masks of equal values and of NULL; rows that move out of the condition and into it.
    f"INSERT INTO {PEOPLE} VALUES (-1, 'a', 'hidden-email-é', '', 'EU', NULL), (-2, 'b', NULL, NULL, 'EU', 'hidden-diary')",
    f"INSERT INTO {PEOPLE} VALUES (-3, 'c', NULL, NULL, 'EU', NULL), (-4, 'd', NULL, NULL, 'hidden-region', NULL)",
    f"UPDATE {PEOPLE} SET region = 'hidden-region' WHERE id = -3",
    f"UPDATE {PEOPLE} SET region = 'EU', email = 'hidden-email-é' WHERE id = -4",
    # Rows as they were before an update and a delete.
    f"UPDATE {PEOPLE} SET name = 'seen', email = 'hidden-email', diary = 'hidden-diary' WHERE id = 2",
    f"DELETE FROM {PEOPLE} WHERE id = 4",
    # One row of a table without a key.
    f"INSERT INTO {EVENTS} VALUES ('2021-02-03 04:05:06.789012+00', 'told', 1.5, '')",
    f"UPDATE {EVENTS} SET amount = NULL WHERE kind = 'told'",
    f"DELETE FROM {EVENTS} WHERE kind = 'told'",
    # What will be delivered again.
    f"INSERT INTO {EVENTS} VALUES (NULL, 'again', 1, ''), (NULL, 'again', 1, '')",
    f"UPDATE {EVENTS} SET amount = 2 WHERE kind = 'again'",
    f"UPDATE {PEOPLE} SET name = 'again' WHERE id = 6",
)
TRAFFIC = (
    f"INSERT INTO {EVENTS} SELECT now(), 'live', 1, 'hidden-payload' FROM generate_series(1, 3)",
    f"UPDATE {EVENTS} SET amount = amount + 1 WHERE ctid IN (SELECT ctid FROM {EVENTS} WHERE kind = 'kind 3' LIMIT 3)",
    f"DELETE FROM {EVENTS} WHERE ctid IN (SELECT ctid FROM {EVENTS} WHERE kind IN ('live', 'kind 5') LIMIT 2)",
    f"UPDATE {PEOPLE} SET name = name || '.', email = email || '.' WHERE id % 100 = (random() * 99)::int AND id > 10",
    f"UPDATE {PEOPLE} SET region = CASE region WHEN 'EU' THEN 'hidden-region' ELSE 'EU' END "
    "WHERE id % 90 = (random() * 89)::int AND id > 10",
    f"UPDATE {PEOPLE} SET id = id + 10000 WHERE id = (random() * 600)::int AND id > 10",
    f"DELETE FROM {PEOPLE} WHERE id = (random() * 600)::int AND id > 10",
)


class Modes:
    """The pipeline, and what the tests do with it."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.endpoints = platform, platform.endpoints
        self.pipeline = self.with_tables(TABLES)
        self.manager = JobManager(self.endpoints["shudl_flink"].url)

    @staticmethod
    def with_tables(tables: dict[str, Any]) -> Pipeline:
        return Pipeline.model_validate({"source": SOURCE, "connection": "flights_db", "tables": tables})

    def reconcile(self, pipeline: Pipeline | None = None) -> list[str]:
        """What ``cdc_<source>`` does, in its order."""
        wanted = pipeline or self.pipeline
        steps = (reconcile.reconcile_database, reconcile.reconcile_messaging, reconcile.reconcile_lake, reconcile.retire)
        changes = [change for step in steps for change in step(wanted, self.endpoints)]
        return changes + [c for table in wanted.tables for c in reconcile.reconcile_table_jobs(wanted, self.endpoints, table)]

    def execute(self, *statements: str) -> None:
        """Each statement in its own transaction."""
        with psycopg.connect(self.platform.source, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def cover(self) -> None:
        wait_until_covered(self.pipeline, self.endpoints, timeout_s=200)

    def prove(self) -> Report:
        return prove(self.pipeline, self.endpoints, 400)

    def jobs(self) -> dict[str, str]:
        """The ids of the pipeline's jobs that are not over, by name."""
        jobs = (job for job in self.manager.jobs() if job["state"] not in ("CANCELED", "FAILED", "FINISHED"))
        return {job["name"]: job["jid"] for job in jobs if job["name"].startswith(f"{self.pipeline.connector}.")}

    def cancel(self, *names: str) -> None:
        jobs = self.jobs()
        for name in names:
            self.manager.cancel(jobs[name])
        self.platform.eventually(lambda: not set(names) & set(self.jobs()), 60, f"{names} are cancelled")

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Inserts, updates, deletes, other keys and rows that move in and out of the condition, within the block."""
        stop = threading.Event()

        def run() -> None:
            with psycopg.connect(self.platform.source, autocommit=True) as connection:
                while not stop.wait(0.1):
                    for statement in TRAFFIC:
                        with suppress(psycopg.errors.UniqueViolation):
                            connection.execute(statement)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def records(self, topic: str) -> list[Any]:
        """Every record of a topic."""
        reading = {"group.id": f"{SOURCE}-test", "enable.auto.commit": False}
        consumer = Consumer(client_config(self.endpoints["shudl_kafka"], reading))
        try:
            consumer.assign([TopicPartition(topic, 0, 0)])
            end, found = end_offsets([topic], self.endpoints)[topic], []
            while len(found) < end:
                record = consumer.poll(20)
                assert record is not None and not record.error(), f"{topic} ends at {end}, {len(found)} read"
                found.append(record)
            return found
        finally:
            consumer.close()

    def has_commits(self) -> bool:
        """Whether mirrors and changelogs have had their first commits."""
        return all(t["committed_at_ms"] for t in pipeline_status(self.pipeline, self.endpoints)["tables"])

    def each_offset_once(self, table: str) -> int:
        """The changes in a changelog, which are all of its topic, each once."""
        (found,) = self.platform.in_lake(
            f"SELECT count(*), count(DISTINCT _kafka_offset), min(_kafka_offset), max(_kafka_offset) + 1, max(_kafka_partition) "
            f"FROM {self.pipeline.changelog_table(table)}"
        )
        topic = self.pipeline.topic(table)
        end = end_offsets([topic], self.endpoints)[topic]
        assert found == (end, end, 0, end, 0)
        return end

    def remove(self) -> None:
        remove(self.pipeline, self.endpoints)
        self.execute(f"DROP SCHEMA IF EXISTS {SOURCE} CASCADE")
        catalog = Lake.from_endpoints(self.endpoints).pyiceberg()
        for table in catalog.list_tables(self.pipeline.namespace):
            catalog.drop_table(table)
        catalog.drop_namespace(self.pipeline.namespace)


@pytest.fixture(scope="module")
def modes(flights: Platform) -> Iterator[Modes]:
    """The pipeline set up while its tables change; then :data:`STORY` has happened."""
    made = Modes(flights)
    made.execute(*SETUP.split(";\n")[:-1])
    try:
        with made.traffic():
            made.reconcile()
            made.platform.eventually(made.has_commits, 90, "rows have arrived")
        made.execute(*STORY)
        made.cover()
        yield made
    finally:
        made.remove()


def found(report: Report) -> dict[tuple[str, str, str], list[Any]]:
    """The keys that a report lists, by table, right store and kind."""
    return {
        (c.table, c.right, kind): [row["key"] for row in getattr(c, kind).rows]
        for c in report.comparisons
        for kind in KINDS
        if getattr(c, kind).count
    }


def test_a_second_run_changes_nothing(modes: Modes) -> None:
    assert modes.reconcile() == []
    assert set(modes.jobs()) == {f"cdc.{SOURCE}.{SOURCE}_{name}" for name in ("people", "people_changelog", "events_changelog")}


def test_the_lake_has_what_is_selected(modes: Modes) -> None:
    catalog, added = Lake.from_endpoints(modes.endpoints).pyiceberg(), ["_op", "_lsn", "_tx_id", "_committed_at"]
    columns = {
        name: [field.name for field in catalog.load_table(f"{modes.pipeline.namespace}.{SOURCE}_{name}").schema().fields]
        for name in ("people", "people_changelog", "events_changelog")
    }
    people = ["id", "name", "email", "phone", "region"]
    assert columns == {
        "people": [*people, "_lsn", "_committed_at"],
        "people_changelog": [*people, *added, "_kafka_partition", "_kafka_offset"],
        "events_changelog": ["at", "kind", "amount", *added, "_kafka_partition", "_kafka_offset", "_before"],
    }


def test_masks(modes: Modes) -> None:
    """Equal values have equal masks, NULL none; rows go with the condition."""
    salt = settings.secret("mask_salt")

    def mask(text: str) -> str:
        return hashlib.sha256((salt + text).encode()).hexdigest()

    rows = modes.platform.in_lake(
        f"SELECT id, name, email, phone FROM {modes.pipeline.iceberg_table(PEOPLE)} WHERE id < 0 ORDER BY id DESC"
    )
    assert rows == [
        (-1, "a", mask("hidden-email-é"), mask("")),
        (-2, "b", None, None),
        (-4, "d", mask("hidden-email-é"), None),
    ]
    changes = f"SELECT id, _op FROM {modes.pipeline.changelog_table(PEOPLE)} WHERE id < 0 ORDER BY _kafka_offset"
    assert modes.platform.in_lake(changes) == [(-1, "c"), (-2, "c"), (-3, "c"), (-3, "d"), (-4, "c")]


def test_nothing_hidden_is_in_kafka_or_in_logs(modes: Modes) -> None:
    for table in TABLES:
        content = b"".join(
            part for record in modes.records(modes.pipeline.topic(table)) for part in (record.key(), record.value()) if part
        )
        assert b"kind 3" in content if table == EVENTS else b"seen" in content
        assert [text for text in HIDDEN if text.encode() in content] == []
    salt = settings.secret("mask_salt")
    assert [log.name for log in settings.logs.glob("*.log") if salt in log.read_text(errors="replace")] == []


def test_a_changelog_tells_every_change(modes: Modes) -> None:
    """Of a table without a key also the row before an update."""
    table = modes.pipeline.changelog_table(EVENTS)
    rows = modes.platform.in_lake(
        "SELECT to_iso8601(at), CAST(amount AS varchar), _op, CAST(_before.amount AS varchar), _before.kind, _lsn, _tx_id, "
        f"_committed_at > current_timestamp - INTERVAL '10' MINUTE FROM {table} WHERE kind = 'told' ORDER BY _kafka_offset"
    )
    at = "2021-02-03T04:05:06.789012Z"
    assert [row[:5] for row in rows] == [
        (at, "1.50", "c", None, None),
        (at, None, "u", "1.50", "told"),
        (at, None, "d", None, None),
    ]
    assert len({row[5] for row in rows}) == len({row[6] for row in rows}) == 3 and all(row[7] for row in rows)
    assert [row[5] for row in rows] == sorted(row[5] for row in rows)


def test_jobs_lost_with_their_checkpoints(modes: Modes) -> None:
    """Cancelled between checkpoints, retained ones gone: changelogs have neither gaps nor repeats."""
    with modes.traffic():
        before = modes.jobs()
        names = [modes.pipeline.changelog_job(table) for table in TABLES]
        modes.cancel(*names)
        for name in names:
            (folder,) = Path(modes.endpoints["shudl_flink"].extra["checkpoint_dir"]).glob(f"{name}-*")
            shutil.rmtree(folder)
        changes = modes.reconcile()
        assert [change.split(" (")[0] for change in changes] == [f"submitted job {name}" for name in names]
        assert all(" from offset " in change and " from offset 0 " not in change for change in changes)
    modes.cover()
    after = modes.jobs()
    assert {name for name in after if after[name] != before[name]} == set(names)
    for table in TABLES:
        assert modes.each_offset_once(table) > 100


def test_the_folded_changelog_equals_the_mirror(modes: Modes) -> None:
    with psycopg.connect(modes.platform.source, autocommit=True) as connection:
        people = next(table for table in describe(connection, modes.pipeline) if table.name == PEOPLE)
    columns = ", ".join(column.name for column in people.columns)
    fold = f"SELECT {columns} FROM {stores.changelog(modes.pipeline, modes.endpoints, 60).relation(people)}"
    mirror = f"SELECT {columns} FROM {modes.pipeline.iceberg_table(PEOPLE)}"
    ((rows,),) = modes.platform.in_lake(f"SELECT count(*) FROM ({mirror})")
    assert rows > 100 and modes.platform.in_lake(f"SELECT count(*) FROM ({fold})") == [(rows,)]
    assert modes.platform.in_lake(f"({fold} EXCEPT {mirror}) UNION ALL ({mirror} EXCEPT {fold})") == []


def test_proof_while_the_source_changes(modes: Modes) -> None:
    """With records that were delivered twice, as Debezium does after a crash: the proof counts them once."""
    producer = Producer(client_config(modes.endpoints["shudl_kafka"]))
    for table in TABLES:
        for record in (r for r in modes.records(modes.pipeline.topic(table)) if b"again" in r.value()):
            producer.produce(record.topic(), record.value(), record.key(), 0, headers=record.headers())
    assert producer.flush(20) == 0
    with modes.traffic():
        report = modes.prove()
    assert report.unresolved == 0, report.text()
    rows = {(c.table, c.right): c.left_rows for c in report.comparisons}
    assert set(rows) == {(PEOPLE, "iceberg"), (PEOPLE, "changelog"), (EVENTS, "changelog")}
    assert min(rows.values()) > 100
    changes = f"SELECT count(*) FROM {modes.pipeline.changelog_table(EVENTS)} WHERE kind = 'again'"
    assert modes.platform.in_lake(changes) == [(8,)]


def test_what_is_wrong_in_changelogs_is_named(modes: Modes) -> None:
    people, events = modes.pipeline.changelog_table(PEOPLE), modes.pipeline.changelog_table(EVENTS)
    columns = ", ".join(name for (name, *_) in modes.platform.in_lake(f"SHOW COLUMNS FROM {people}"))
    wrong = columns.replace("name", "'wrong' AS name").replace("_kafka_offset", "_kafka_offset + 0 AS _kafka_offset")
    modes.execute(f"INSERT INTO {EVENTS} VALUES (NULL, 'lost', 7, ''), (NULL, 'lost', 7, '')")
    modes.cover()
    lost = f"(SELECT max(_kafka_offset) FROM {events} WHERE kind = 'lost')"
    modes.platform.in_lake(f"DELETE FROM {events} WHERE _kafka_offset = {lost}")
    modes.platform.in_lake(
        f"CREATE TABLE {people}_kept AS SELECT {columns} FROM {people} WHERE id = 6 ORDER BY _kafka_offset DESC LIMIT 1"
    )
    last = f"_kafka_offset = (SELECT _kafka_offset FROM {people}_kept)"
    modes.platform.in_lake(f"DELETE FROM {people} WHERE {last}")
    modes.platform.in_lake(f"INSERT INTO {people} SELECT {wrong} FROM {people}_kept")
    report = modes.prove()
    assert found(report) == {
        (EVENTS, "changelog", "missing"): [{"at": None, "kind": "lost", "amount": "7.00"}],
        (PEOPLE, "changelog", "different"): [{"id": "6"}],
    }


def test_jobs_come_and_go_with_the_modes(modes: Modes) -> None:
    mirror, log, events = (f"cdc.{SOURCE}.{SOURCE}_{name}" for name in ("people", "people_changelog", "events_changelog"))
    fewer = modes.with_tables({PEOPLE: {**TABLES[PEOPLE], "mode": "changelog"}})
    kept = modes.jobs()[log]
    changes = reconcile.retire(fewer, modes.endpoints)
    assert sorted(change.split(" (")[0] for change in changes) == [f"cancelled job {events}", f"cancelled job {mirror}"]
    assert all(change.endswith("stays") for change in changes)
    modes.platform.eventually(lambda: modes.jobs() == {log: kept}, 60, "the two are cancelled")
    (only,) = pipeline_status(fewer, modes.endpoints)["tables"]
    assert (only["table"], only["mode"], only["job"]) == (PEOPLE, "changelog", "RUNNING")
    changes = modes.reconcile()
    assert [change.split(" (")[0] for change in changes] == [f"submitted job {mirror}", f"submitted job {events}"]
    assert " from checkpoint chk-" in changes[0] and " from offset " in changes[1]
    modes.cover()
    assert modes.jobs()[log] == kept
    states = {(t["table"], t["mode"], t["job"], t["behind"]) for t in pipeline_status(modes.pipeline, modes.endpoints)["tables"]}
    assert states == {(PEOPLE, "mirror", "RUNNING", 0), (PEOPLE, "changelog", "RUNNING", 0), (EVENTS, "changelog", "RUNNING", 0)}


@pytest.mark.parametrize(
    ("table", "kept", "problem"),
    [
        (EVENTS, {"mode": "mirror"}, "has no primary key, which mode mirror needs; use mode: changelog, or add a key"),
        (EVENTS, {"mode": "both"}, "has no primary key, which mode both needs"),
        (PEOPLE, {"mode": "changelog", "serve": True}, "serve copies the mirror"),
        (PEOPLE, {"columns": ["id"], "exclude": ["name"]}, "columns and exclude are both given"),
        (PEOPLE, {"columns": ["id", "nmae"]}, "columns names nmae, which is no column of it; it has id, name, email"),
        (PEOPLE, {"exclude": ["ID"]}, "exclude names ID, which is no column of it"),
        (PEOPLE, {"columns": ["name"]}, "column id belongs to the primary key and cannot be left out"),
        (PEOPLE, {"exclude": ["email"], "mask": ["email"]}, "mask names email, which is not captured"),
        (PEOPLE, {"mask": ["id"]}, "column id belongs to the primary key and cannot be masked"),
        (EVENTS, {"mode": "changelog", "mask": ["amount"]}, "column amount of type numeric cannot be masked"),
        (f"{SOURCE}.short", {"mask": ["code"]}, "column code holds 63 characters, a mask has 64"),
        (PEOPLE, {"where": "region ="}, "where: region =: syntax error"),
        (PEOPLE, {"where": "regoin = 'EU'"}, "where: regoin = 'EU': column \"regoin\" does not exist"),
        (PEOPLE, {"where": "random() < 0.5"}, "where: random() < 0.5: invalid publication WHERE expression"),
        (PEOPLE, {"where": f"true), TABLE {EVENTS} WHERE (true"}, "where: true), TABLE"),
        (PEOPLE, {"where": f"true); DROP TABLE {EVENTS}; SELECT (1"}, "where: true); DROP TABLE"),
    ],
)
def test_what_cannot_be_is_refused_by_name(modes: Modes, table: str, kept: dict[str, Any], problem: str) -> None:
    modes.execute(f"CREATE TABLE IF NOT EXISTS {SOURCE}.short (id int PRIMARY KEY, code varchar(63))")
    with psycopg.connect(modes.platform.source, autocommit=True) as connection, pytest.raises(PipelineError) as error:
        describe(connection, modes.with_tables({table: kept}))
    assert len(error.value.problems) == 1
    assert f": tables.{table}: {problem}" in error.value.problems[0]


@pytest.mark.parametrize("change", [{"mask": ["email"]}, {"where": "region <> 'US'"}, {"exclude": []}])
def test_another_selection_of_a_captured_table_is_refused(modes: Modes, change: dict[str, Any]) -> None:
    other = modes.with_tables({**TABLES, PEOPLE: {**TABLES[PEOPLE], **change}})
    with pytest.raises(PipelineError, match=rf"tables\.{PEOPLE}: its columns, exclude, mask or where has changed since"):
        modes.reconcile(other)
    assert modes.reconcile() == []


def test_a_changelog_does_not_go_on_with_another_topic(modes: Modes) -> None:
    modes.cancel(modes.pipeline.changelog_job(EVENTS))
    changelog = Lake.from_endpoints(modes.endpoints).pyiceberg().load_table(modes.pipeline.changelog_table(EVENTS))
    assert changelog.properties[TOPIC_ID] == topic_id(modes.pipeline.topic(EVENTS), modes.endpoints)
    with changelog.transaction() as transaction:
        transaction.set_properties({TOPIC_ID: "another"})
    with pytest.raises(PipelineError, match=r"_events_changelog has the changes up to offset \d+ of a topic .* made anew"):
        modes.reconcile()
