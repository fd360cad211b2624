"""How to tell that each service is healthy, and that it works.

``healthy(name, endpoints)`` asks the service itself, within a few seconds. ``works(name, endpoints)`` makes
what ShuDL needs of the service when it is absent (a bucket, a branch, a database), then uses the service as
ShuDL does, cleans up, and returns the figures it saw.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from include.lake.catalog import BRANCH, BUCKET, LANDING, PUBLISHED, WAREHOUSE, Lake, existing
from include.lake.s3 import ensure_buckets, s3_client
from include.platform import server_checks
from include.platform.catalog import CONN_IDS, EXTERNAL, service
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.flink import JobManager, SqlGateway
from include.platform.kafka import KafkaUnreachable, RightsRefused, admin_client, brokers, client_config, ensure_access
from include.platform.settings import settings
from include.platform.spark import Master, submit, web_ui

HEALTH_TIMEOUT_S = 4.0
SPARK_CHECK = Path(__file__).with_name("spark_check.py")
SPARK_CHECK_S = 180
SPARK_CHECK_CONF = {
    "spark.cores.max": "1",
    **{f"spark.{process}.extraJavaOptions": "-XX:TieredStopAtLevel=1" for process in ("driver", "executor")},
}
"""One core; code that runs once is not worth optimizing."""


class NotHealthy(RuntimeError):
    """The service does not answer, or says that it is not ready; the text gives its reason."""


class CheckFailed(RuntimeError):
    """The service answers but did not do what was asked of it."""


def healthy(name: str, endpoints: Endpoints) -> None:
    """Return when the service called ``name`` says that it is ready. Raises :class:`NotHealthy`."""
    service(name)
    endpoint = endpoints[CONN_IDS[name]]
    try:
        _HEALTHY[name](endpoint)
    except NotHealthy:
        raise
    except Exception as error:
        raise NotHealthy(
            f"{endpoint.address}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error


def works(name: str, endpoints: Endpoints) -> dict[str, Any]:
    """Use the service called ``name`` as ShuDL does; return what was seen. Raises :class:`CheckFailed`."""
    service(name)
    started = time.monotonic()
    try:
        figures = _WORKS[name](endpoints)
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(f"{name} at {endpoints[CONN_IDS[name]].address}: {type(error).__name__}: {error}") from error
    return {**figures, "seconds": round(time.monotonic() - started, 3)}


def _expect(ok: bool, text: str) -> None:
    if not ok:
        raise CheckFailed(text)


def _get(url: str) -> httpx.Response:
    answer = httpx.get(url, timeout=HEALTH_TIMEOUT_S)
    if not answer.is_success:
        raise NotHealthy(f"GET {url}: HTTP {answer.status_code}")
    return answer


# ── healthy ──────────────────────────────────────────────────────────────────────────────────────────────


def _postgres_healthy(endpoint: Endpoint) -> None:
    import psycopg

    with psycopg.connect(endpoint.conninfo, connect_timeout=3) as connection:
        connection.execute("SELECT 1")


def _s3_healthy(endpoint: Endpoint) -> None:
    _s3(endpoint).list_buckets()


def _members(name: str, endpoint: Endpoint, port: str = "") -> tuple[str, ...]:
    """The hosts that make up a service of this platform's; of one that is somewhere else, the one that is known.

    ``port`` is the name of the port at which the service is reached, by default its own.
    """
    own = endpoint.address == "{}:{}".format(*settings.address(port or name))
    return (own and service(name).containers) or (endpoint.host,)


def _all_there(found: int, wanted: int, what: str) -> None:
    if found < wanted:
        raise NotHealthy(f"{found} of {wanted} {what}" if wanted > 1 else f"no {what}")


def _kafka_healthy(endpoint: Endpoint) -> None:
    try:
        found = brokers(endpoint, HEALTH_TIMEOUT_S)
    except KafkaUnreachable as error:
        raise NotHealthy(str(error)) from None
    _all_there(found, len(_members("kafka", endpoint)), "brokers are there")


def _taskmanager_healthy(endpoint: Endpoint) -> None:
    found = JobManager(endpoint.url, HEALTH_TIMEOUT_S).overview()["taskmanagers"]
    _all_there(found, len(_members("flink-taskmanager", endpoint, "flink")), "task manager is registered at the job manager")


def _spark_master(endpoint: Endpoint) -> Master:
    return Master(web_ui(endpoint), HEALTH_TIMEOUT_S)


def _spark_worker_healthy(endpoint: Endpoint) -> None:
    wanted = len(_members("spark-worker", endpoint, "spark"))
    _all_there(len(_spark_master(endpoint).workers()), wanted, "worker is registered at the master")


def _trino_healthy(endpoint: Endpoint) -> None:
    for host in _members("trino", endpoint):
        if _get(f"{replace(endpoint, host=host).url}/v1/info").json()["starting"]:
            raise NotHealthy(f"{host} is still starting")


_HEALTHY: dict[str, Callable[[Endpoint], object]] = {
    "postgres": _postgres_healthy,
    "s3": _s3_healthy,
    "kafka": _kafka_healthy,
    "registry": lambda e: _get(f"{e.url}/apis/ccompat/v7/subjects"),
    "nessie": lambda e: _get(f"{e.url}/api/v2/config"),
    "connect": lambda e: _get(f"{e.url}/connectors"),
    "flink-jobmanager": lambda e: JobManager(e.url, HEALTH_TIMEOUT_S).overview(),
    "flink-taskmanager": _taskmanager_healthy,
    "flink-sql-gateway": lambda e: _get(f"{e.url}/v3/info"),
    "spark-master": lambda e: _spark_master(e).state(),
    "spark-worker": _spark_worker_healthy,
    "trino": _trino_healthy,
    "clickhouse": lambda e: _get(f"{e.url}/ping"),
    "haproxy": _postgres_healthy,
    **server_checks.HEALTHY,
}


# ── works ────────────────────────────────────────────────────────────────────────────────────────────────


def _postgres_works(endpoints: Endpoints) -> dict[str, Any]:
    import psycopg

    with psycopg.connect(endpoints["flights_db"].conninfo) as connection:
        connection.execute("CREATE TEMPORARY TABLE shudl_check (n int)")
        connection.execute("INSERT INTO shudl_check SELECT generate_series(1, 100)")
        (total,) = connection.execute("SELECT sum(n) FROM shudl_check").fetchone()
        version, wal_level = connection.execute(
            "SELECT current_setting('server_version'), current_setting('wal_level')"
        ).fetchone()
    _expect(total == 5050, f"PostgreSQL summed 1..100 to {total}")
    return {"version": version, "wal_level": wal_level}


def _s3(endpoint: Endpoint) -> Any:
    return s3_client(endpoint, connect_s=3, read_s=15, attempts=1)


def _s3_works(endpoints: Endpoints) -> dict[str, Any]:
    client = _s3(endpoints["shudl_s3"])
    ensure_buckets(client, BUCKET, LANDING)
    key, body = f"_check/{uuid.uuid4()}", uuid.uuid4().bytes * 64
    client.put_object(Bucket=BUCKET, Key=key, Body=body)
    try:
        _expect(client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body, f"s3://{BUCKET}/{key} came back changed")
        listed = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])]
        _expect(listed == [key], f"s3://{BUCKET}/{key} is not in the listing")
    finally:
        client.delete_object(Bucket=BUCKET, Key=key)
    return {"bucket": BUCKET, "bytes": len(body)}


def _kafka_works(endpoints: Endpoints) -> dict[str, Any]:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import NewTopic

    endpoint = endpoints["shudl_kafka"]
    if "kafka" not in EXTERNAL:  # who may what on a cluster of somebody else's is said there
        with suppress(RightsRefused):
            ensure_access(endpoints)
    admin = admin_client(endpoint, {"socket.timeout.ms": 5000})
    topic = f"_shudl_check_{uuid.uuid4().hex[:12]}"
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(30)
    try:
        sent = uuid.uuid4().bytes * 64
        packed = {"compression.type": "zstd"}  # which the broker unpacks
        producer = Producer(client_config(endpoint, {"acks": "all", "message.timeout.ms": 30000, **packed}))
        producer.produce(topic, sent)
        _expect(producer.flush(30) == 0, "the message was not acknowledged within 30 s")
        reading = {"group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer = Consumer(client_config(endpoint, reading))
        try:
            consumer.subscribe([topic])
            deadline, got = time.monotonic() + 30, None
            while got is None and time.monotonic() < deadline:
                message = consumer.poll(1)
                if message is not None and message.error() is None:
                    got = message.value()
        finally:
            consumer.close()
        _expect(got == sent, "the message did not come back within 30 s")
    finally:
        admin.delete_topics([topic])[topic].result(30)
        admin.delete_consumer_groups([topic])
    return {"brokers": brokers(endpoint)}


def _registry_works(endpoints: Endpoints) -> dict[str, Any]:
    base = f"{endpoints['shudl_registry'].url}/apis/ccompat/v7"
    subject = f"_shudl_check_{uuid.uuid4().hex[:12]}"
    schema = '{"type":"record","name":"check","fields":[{"name":"n","type":"long"}]}'
    with httpx.Client(timeout=20) as http:
        made = http.post(f"{base}/subjects/{subject}/versions", json={"schema": schema}).raise_for_status().json()
        try:
            read = http.get(f"{base}/schemas/ids/{made['id']}").raise_for_status().json()["schema"]
            _expect('"check"' in read, f"schema {made['id']} came back as {read}")
        finally:
            http.delete(f"{base}/subjects/{subject}")
            http.delete(f"{base}/subjects/{subject}?permanent=true")
    return {"schema_id": made["id"]}


def _nessie_works(endpoints: Endpoints) -> dict[str, Any]:
    from include.lake.refs import Refs

    lake = Lake.from_endpoints(endpoints)
    refs = Refs(lake.nessie_url)
    refs.ensure(PUBLISHED, BRANCH)
    name = f"check-{uuid.uuid4().hex[:12]}"
    refs.ensure(name, BRANCH)
    try:
        before = refs.hash(name)
        catalog = lake.pyiceberg(name)
        catalog.create_namespace("shudl_check")
        after = refs.hash(name)
        _expect(after != before, f"a commit left branch {name} at {before}")
    finally:
        refs.drop(name)
    return {"warehouse": WAREHOUSE, BRANCH: refs.hash(BRANCH), PUBLISHED: refs.hash(PUBLISHED)}


def _connect_works(endpoints: Endpoints) -> dict[str, Any]:
    url = endpoints["shudl_connect"].url
    plugins = {
        p["class"]: p.get("version", "") for p in httpx.get(f"{url}/connector-plugins?connectorsOnly=false", timeout=20).json()
    }
    wanted = ("io.debezium.connector.postgresql.PostgresConnector", "io.confluent.connect.avro.AvroConverter")
    for name in wanted:
        _expect(name in plugins, f"Kafka Connect does not have {name}")
    return {"version": httpx.get(url, timeout=20).json()["version"], "debezium": plugins[wanted[0]]}


def _flink_job_works(endpoints: Endpoints) -> dict[str, Any]:
    with SqlGateway(
        endpoints["shudl_flink_gateway"].url, {"execution.runtime-mode": "batch", "pipeline.name": "shudl.check"}
    ) as sql:
        result = sql.execute("SELECT SUM(n) FROM (VALUES (1), (2), (3)) AS t (n)", timeout_s=90)
    _expect(result.rows == [[6]], f"Flink summed 1, 2, 3 to {result.rows}")
    return {"job_id": result.job_id}


def _flink_overview(endpoints: Endpoints) -> dict[str, Any]:
    overview = JobManager(endpoints["shudl_flink"].url).overview()
    return {"version": overview["flink-version"], "slots": overview["slots-total"], "free": overview["slots-available"]}


def _taskmanager_works(endpoints: Endpoints) -> dict[str, Any]:
    figures = _flink_overview(endpoints)
    _expect(figures["slots"] > 0, "the task manager offers no slots")
    return figures


def _spark_master_works(endpoints: Endpoints) -> dict[str, Any]:
    state = _spark_master(endpoints["shudl_spark"]).state()
    _expect(state["status"] == "ALIVE", f"the master at {state['url']} is {state['status']}")
    return {"url": state["url"], "applications": len(state["activeapps"])}


def _spark_worker_works(endpoints: Endpoints) -> dict[str, Any]:
    """An application writes an Iceberg table that Trino and ClickHouse read."""
    from include.platform.trino import connect as trino
    from include.serving.clickhouse import connect as clickhouse
    from include.serving.clickhouse import ensure_lake

    lake = Lake.from_endpoints(endpoints)
    namespace, table, rows = "audit", f"check_{uuid.uuid4().hex[:12]}", 100
    query = "SELECT count(*), count(DISTINCT text), sum(n), min(text), max(text) FROM"
    expected = (rows, rows, rows * (rows + 1) // 2, "n1", "n99")
    try:
        version = submit(
            f"shudl.{table}", SPARK_CHECK, [namespace, table, str(rows)], endpoints, SPARK_CHECK_CONF, SPARK_CHECK_S
        ).strip()
        with trino(endpoints, "lake") as connection:
            cursor = connection.cursor()
            cursor.execute(f"{query} {namespace}.{table}")
            seen = {"Trino": tuple(cursor.fetchone())}
        with clickhouse(endpoints) as client:
            ensure_lake(client, lake)
            seen["ClickHouse"] = tuple(client.query(f"{query} lake.`{namespace}.{table}`").result_rows[0])
        for engine, found in seen.items():
            _expect(found == expected, f"Spark wrote {expected} to {namespace}.{table}, and {engine} reads {found}")
    finally:
        _drop_table(lake, endpoints, namespace, table)
    cores = sum(worker["cores"] for worker in _spark_master(endpoints["shudl_spark"]).workers())
    return {"version": version, "cores": cores, "rows": rows}


def _drop_table(lake: Lake, endpoints: Endpoints, namespace: str, table: str) -> None:
    """Drop an Iceberg table, if there, with all its files."""
    catalog, name = lake.pyiceberg(), f"{namespace}.{table}"
    if (found := existing(catalog, name)) is None:
        return
    catalog.drop_table(name)
    bucket, _, folder = found.location().removeprefix("s3://").partition("/")
    client = _s3(endpoints["shudl_s3"])
    for item in client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", []):
        client.delete_object(Bucket=bucket, Key=item["Key"])


def _trino_works(endpoints: Endpoints) -> dict[str, Any]:
    from include.platform.trino import connect

    # A coordinator that has just started may not have found itself as a worker yet.
    deadline = time.monotonic() + 60
    with connect(endpoints, "lake") as connection:
        cursor = connection.cursor()
        while True:
            try:
                cursor.execute("SELECT sum(n) FROM unnest(sequence(1, 100)) AS t (n)")
                total = cursor.fetchone()[0]
                break
            except Exception as error:
                if "NO_NODES_AVAILABLE" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        _expect(total == 5050, f"Trino summed 1..100 to {total}")
        cursor.execute("SHOW SCHEMAS")
        schemas = [row[0] for row in cursor.fetchall()]
        cursor.execute("SELECT count(*), min(node_version) FROM system.runtime.nodes WHERE state = 'active'")
        nodes, version = cursor.fetchone()
    return {"version": version, "nodes": nodes, "schemas": len(schemas)}


def _clickhouse_works(endpoints: Endpoints) -> dict[str, Any]:
    from include.serving.clickhouse import connect, ensure_lake

    lake = Lake.from_endpoints(endpoints)
    with connect(endpoints) as client:
        ensure_lake(client, lake)
        database = f"_check_{uuid.uuid4().hex[:12]}"
        client.command(f"CREATE DATABASE {database}")
        try:
            client.command(f"CREATE TABLE {database}.t (n UInt32) ENGINE = MergeTree ORDER BY n")
            client.insert(f"{database}.t", [[n] for n in range(1, 101)], column_names=["n"])
            total = client.query(f"SELECT sum(n) FROM {database}.t").result_rows[0][0]
        finally:
            client.command(f"DROP DATABASE {database}")
        tables = client.query(
            "SELECT count() FROM system.tables WHERE database = 'lake' SETTINGS show_data_lake_catalogs_in_system_tables=1"
        ).result_rows[0][0]
    _expect(total == 5050, f"ClickHouse summed 1..100 to {total}")
    return {"version": client.server_version, "lake_tables": tables}


_WORKS: dict[str, Callable[[Endpoints], dict[str, Any]]] = {
    "postgres": _postgres_works,
    "s3": _s3_works,
    "kafka": _kafka_works,
    "registry": _registry_works,
    "nessie": _nessie_works,
    "connect": _connect_works,
    "flink-jobmanager": _flink_overview,
    "flink-taskmanager": _taskmanager_works,
    "flink-sql-gateway": _flink_job_works,
    "spark-master": _spark_master_works,
    "spark-worker": _spark_worker_works,
    "trino": _trino_works,
    "clickhouse": _clickhouse_works,
    "haproxy": lambda endpoints: {**_postgres_works(endpoints), **server_checks.haproxy_reads(endpoints["flights_db"])},
    **server_checks.WORKS,
}
