"""The service catalogue: what the platform is made of, in which layer, and what needs what.

A service is described here once. The bootstrap DAG is this graph; the supervisor's configuration,
the CLI's tables and the tests read it. How to tell that a service is healthy and that it works is in
:mod:`include.platform.checks`, under the service's name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One supervised service.

    ``entrypoint`` is the folder below ``docker/services``; ``port`` the name of its main port in
    :data:`include.platform.settings.PORT_OFFSETS`; ``ports`` the names of every port it listens on;
    ``needs`` the services that must *work* before it starts, and ``check_needs`` those that must be healthy
    before its own functional check; ``start_timeout_s`` how long it may
    take from its start until it is healthy; ``stop_signal`` asks it to end (PostgreSQL waits for its clients
    on TERM), and after ``stop_timeout_s`` it is killed.
    """

    name: str
    title: str
    layer: str
    entrypoint: str
    port: str
    ports: tuple[str, ...]
    needs: tuple[str, ...] = ()
    check_needs: tuple[str, ...] = ()
    start_timeout_s: int = 300
    stop_timeout_s: int = 20
    stop_signal: str = "TERM"


LAYERS = ("storage", "messaging", "catalog", "integration", "compute", "serving")

SERVICES: tuple[Service, ...] = (
    Service("postgres", "PostgreSQL (source database)", "storage", "postgres", "postgres", ("postgres",), stop_signal="INT"),
    Service(
        "s3",
        "S3 storage (SeaweedFS)",
        "storage",
        "s3",
        "s3",
        ("s3", "s3_master", "s3_master_grpc", "s3_volume", "s3_volume_grpc", "s3_filer", "s3_filer_grpc", "s3_grpc"),
    ),
    Service("kafka", "Kafka (KRaft)", "messaging", "kafka", "kafka", ("kafka", "kafka_controller"), stop_timeout_s=40),
    Service("registry", "Schema registry (Apicurio)", "messaging", "registry", "registry", ("registry", "registry_management")),
    Service(
        "nessie", "Nessie (Iceberg REST catalog)", "catalog", "nessie", "nessie", ("nessie", "nessie_management"), needs=("s3",)
    ),
    Service("connect", "Kafka Connect with Debezium", "integration", "connect", "connect", ("connect",), needs=("kafka",)),
    Service(
        "flink-jobmanager",
        "Flink job manager",
        "compute",
        "flink",
        "flink",
        ("flink", "flink_jobmanager_rpc", "flink_blob", "flink_metrics"),
    ),
    Service(
        "flink-taskmanager",
        "Flink task manager",
        "compute",
        "flink",
        "flink_taskmanager_rpc",
        ("flink_taskmanager_rpc", "flink_taskmanager_data", "flink_taskmanager_metrics"),
        check_needs=("flink-jobmanager",),
    ),
    Service(
        "flink-sql-gateway",
        "Flink SQL gateway",
        "compute",
        "flink",
        "flink_gateway",
        ("flink_gateway",),
        check_needs=("flink-jobmanager", "flink-taskmanager"),
    ),
    Service("spark-master", "Spark master", "compute", "spark", "spark", ("spark", "spark_ui")),
    Service(
        "spark-worker",
        "Spark worker",
        "compute",
        "spark",
        "spark_worker",
        ("spark_worker", "spark_worker_ui"),
        check_needs=("spark-master", "nessie", "trino", "clickhouse"),
    ),
    Service("trino", "Trino", "compute", "trino", "trino", ("trino",), check_needs=("nessie",), stop_timeout_s=15),
    Service("clickhouse", "ClickHouse", "serving", "clickhouse", "clickhouse", ("clickhouse",), check_needs=("nessie",)),
)

CONTROL_PLANE: tuple[Service, ...] = (
    Service("airflow-db", "Airflow's metadata database", "control", "postgres", "airflow_db", ("airflow_db",), stop_signal="INT"),
    Service(
        "airflow-api-server", "Airflow API server and UI", "control", "airflow", "airflow", ("airflow",), needs=("airflow-db",)
    ),
    Service("airflow-scheduler", "Airflow scheduler", "control", "airflow", "", (), needs=("airflow-db",)),
    Service("airflow-dag-processor", "Airflow DAG processor", "control", "airflow", "", (), needs=("airflow-db",)),
    Service("airflow-triggerer", "Airflow triggerer", "control", "airflow", "", (), needs=("airflow-db",)),
)
"""Airflow itself: it controls the services above, so it never depends on one of them."""

BY_NAME: dict[str, Service] = {service.name: service for service in (*CONTROL_PLANE, *SERVICES)}


class UnknownService(KeyError):
    def __str__(self) -> str:
        return f"{self.args[0]}: no such service; the services are {', '.join(BY_NAME)}"


def service(name: str) -> Service:
    """The service called ``name``. Raises :class:`UnknownService`."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise UnknownService(name) from None
