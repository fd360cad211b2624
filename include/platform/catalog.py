"""The service catalogue: what the platform is made of, in which layer, and what needs what.

A service is described here once. The bootstrap DAG is this graph; the supervisor's configuration,
the CLI's tables and the tests read it. How to tell that a service is healthy and that it works is in
:mod:`include.platform.checks`, under the service's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from include.platform.settings import Settings, SettingsError, settings


@dataclass(frozen=True)
class Service:
    """One supervised service.

    ``entrypoint`` is the folder below ``docker/services``; ``port`` the name of its main port in
    :data:`include.platform.settings.PORT_OFFSETS` or, in docker, ``DOCKER_ADDRESSES``; ``ports`` the names of every port
    it listens on (local); ``conn_id`` the Airflow connection through which it is reached; ``containers`` those that it is
    made of in docker (by default one of its own name);
    ``needs`` the services that must *work* before it starts, and ``check_needs`` those that must be healthy
    before its own functional check; ``start_timeout_s`` how long it may
    take from its start until it is healthy; ``stop_signal`` asks it to end (PostgreSQL waits for its clients
    on TERM), and after ``stop_timeout_s`` it is killed; ``part_of`` the service that is nothing without it, and with which
    it is left to somebody else.
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
    conn_id: str = ""
    containers: tuple[str, ...] = ()
    part_of: str = ""


LOCAL: tuple[Service, ...] = (
    Service(
        "postgres",
        "PostgreSQL (source database)",
        "storage",
        "postgres",
        "postgres",
        ("postgres",),
        stop_signal="INT",
        conn_id="flights_db",
    ),
    Service(
        "s3",
        "S3 storage (SeaweedFS)",
        "storage",
        "s3",
        "s3",
        ("s3", "s3_master", "s3_master_grpc", "s3_volume", "s3_volume_grpc", "s3_filer", "s3_filer_grpc", "s3_grpc"),
        conn_id="shudl_s3",
    ),
    Service(
        "kafka",
        "Kafka (KRaft)",
        "messaging",
        "kafka",
        "kafka",
        ("kafka", "kafka_controller"),
        stop_timeout_s=40,
        conn_id="shudl_kafka",
    ),
    Service(
        "registry",
        "Schema registry (Apicurio)",
        "messaging",
        "registry",
        "registry",
        ("registry", "registry_management"),
        conn_id="shudl_registry",
    ),
    Service(
        "nessie",
        "Nessie (Iceberg REST catalog)",
        "catalog",
        "nessie",
        "nessie",
        ("nessie", "nessie_management"),
        needs=("s3",),
        conn_id="shudl_nessie",
    ),
    Service(
        "connect",
        "Kafka Connect with Debezium",
        "integration",
        "connect",
        "connect",
        ("connect",),
        needs=("kafka",),
        conn_id="shudl_connect",
    ),
    Service(
        "flink-jobmanager",
        "Flink job manager",
        "compute",
        "flink",
        "flink",
        ("flink", "flink_jobmanager_rpc", "flink_blob", "flink_metrics"),
        conn_id="shudl_flink",
    ),
    Service(
        "flink-taskmanager",
        "Flink task manager",
        "compute",
        "flink",
        "flink_taskmanager_rpc",
        ("flink_taskmanager_rpc", "flink_taskmanager_data", "flink_taskmanager_metrics"),
        check_needs=("flink-jobmanager",),
        conn_id="shudl_flink",
    ),
    Service(
        "flink-sql-gateway",
        "Flink SQL gateway",
        "compute",
        "flink",
        "flink_gateway",
        ("flink_gateway",),
        check_needs=("flink-jobmanager", "flink-taskmanager"),
        conn_id="shudl_flink_gateway",
    ),
    Service("spark-master", "Spark master", "compute", "spark", "spark", ("spark", "spark_ui"), conn_id="shudl_spark"),
    Service(
        "spark-worker",
        "Spark worker",
        "compute",
        "spark",
        "spark_worker",
        ("spark_worker", "spark_worker_ui"),
        check_needs=("spark-master", "nessie", "trino", "clickhouse"),
        conn_id="shudl_spark",
    ),
    Service(
        "trino",
        "Trino",
        "compute",
        "trino",
        "trino",
        ("trino",),
        check_needs=("nessie",),
        stop_timeout_s=15,
        conn_id="shudl_trino",
    ),
    Service(
        "clickhouse",
        "ClickHouse",
        "serving",
        "clickhouse",
        "clickhouse",
        ("clickhouse",),
        check_needs=("nessie",),
        conn_id="shudl_clickhouse",
    ),
)
"""The platform as processes of one machine, in the order in which they start."""


SEVERAL = {
    "kafka": ("kafka", "kafka2", "kafka3"),
    "flink-taskmanager": ("flink-taskmanager", "flink-taskmanager2"),
    "spark-worker": ("spark-worker", "spark-worker2"),
    "trino": ("trino", "trino-worker1", "trino-worker2"),
    "airflow-api-server": ("airflow-api-server", "airflow-api-server2"),
    "airflow-scheduler": ("airflow-scheduler", "airflow-scheduler2"),
}
"""The containers of services that are more than one with Compose's profile ``ha``, and without it the first alone."""


def docker_services(ha: bool = settings.ha) -> tuple[Service, ...]:
    """The platform as containers: a PostgreSQL that fails over, MinIO, and what a team's server has besides."""
    same = {svc.name: _several(svc, ha) for svc in LOCAL}
    return (
        Service(
            "etcd",
            "etcd (who leads)",
            "consensus",
            "etcd",
            "etcd",
            (),
            conn_id="shudl_etcd",
            containers=("etcd1", "etcd2", "etcd3"),
            part_of="haproxy",
        ),
        Service(
            "patroni",
            "PostgreSQL cluster (Patroni)",
            "database",
            "patroni",
            "patroni",
            (),
            needs=("etcd",),
            stop_timeout_s=60,
            conn_id="shudl_patroni",
            containers=("patroni1", "patroni2"),
            part_of="haproxy",
        ),
        Service(
            "haproxy",
            "HAProxy (way to PostgreSQL)",
            "database",
            "haproxy",
            "postgres",
            (),
            needs=("patroni",),
            conn_id="flights_db",
        ),
        replace(same["s3"], title="S3 storage (MinIO)", entrypoint="minio"),
        same["kafka"],
        replace(same["registry"], needs=("haproxy",)),
        Service("kafka-ui", "Kafka UI", "messaging", "kafka-ui", "kafka_ui", (), needs=("kafka",), conn_id="shudl_kafka_ui"),
        replace(same["nessie"], needs=("s3", "haproxy")),
        Service("keycloak", "Keycloak", "access", "keycloak", "keycloak", (), needs=("haproxy",), conn_id="shudl_keycloak"),
        Service(
            "nessie-access",
            "Nessie for people",
            "access",
            "nessie",
            "nessie_access",
            (),
            needs=("nessie", "keycloak"),
            conn_id="shudl_nessie_access",
        ),
        Service(
            "nessie-proxy",
            "Nessie for engines elsewhere",
            "access",
            "nessie-proxy",
            "nessie_proxy",
            (),
            needs=("nessie",),
            conn_id="shudl_nessie_proxy",
        ),
        replace(same["connect"], needs=("kafka", "registry")),
        *(same[name] for name in ("flink-jobmanager", "flink-taskmanager", "flink-sql-gateway", "spark-master", "spark-worker")),
        *(same[name] for name in ("trino", "clickhouse")),
        Service("dbt-docs", "dbt docs", "serving", "dbt-docs", "dbt_docs", (), conn_id="shudl_dbt_docs"),
        Service("prometheus", "Prometheus", "monitoring", "prometheus", "prometheus", (), conn_id="shudl_prometheus"),
        Service("alertmanager", "Alertmanager", "monitoring", "alertmanager", "alertmanager", (), conn_id="shudl_alertmanager"),
        Service("loki", "Loki", "monitoring", "loki", "loki", (), conn_id="shudl_loki"),
        Service("alloy", "Alloy", "monitoring", "alloy", "alloy", (), check_needs=("loki",), conn_id="shudl_alloy"),
        Service(
            "grafana", "Grafana", "monitoring", "grafana", "grafana", (), check_needs=("prometheus",), conn_id="shudl_grafana"
        ),
    )


def _several(svc: Service, ha: bool) -> Service:
    return replace(svc, containers=SEVERAL[svc.name]) if ha and svc.name in SEVERAL else svc


DOCKER = docker_services()


def externals(told: Mapping[str, str], services: Iterable[Service]) -> dict[str, str]:
    """Service → connection, of all that are somebody else's when those ``told`` are: what is reached through the same
    connection goes with it, and so do a service's parts, which have no connection. Raises :class:`SettingsError`.
    """
    by_name = {svc.name: svc for svc in services}
    found: dict[str, str] = {}
    through: dict[str, str] = {}
    for name, conn_id in told.items():
        if name not in by_name:
            raise SettingsError(f"SHUDL_EXTERNAL: {name}: no such service; the services are {', '.join(by_name)}")
        if whole := by_name[name].part_of:
            raise SettingsError(f"SHUDL_EXTERNAL: {name} is a part of {whole}; give {whole} a connection, and both are left out")
        if through.setdefault(by_name[name].conn_id, conn_id) != conn_id:
            others = " and ".join(n for n in told if by_name[n].conn_id == by_name[name].conn_id)
            raise SettingsError(f"SHUDL_EXTERNAL: {others} are reached through one connection; give them the same")
    for svc in by_name.values():
        if svc.part_of in told:
            found[svc.name] = ""
        elif svc.conn_id in through:
            found[svc.name] = through[svc.conn_id]
    return found


def external_to(s: Settings) -> dict[str, str]:
    """:func:`externals` of the runtime and the settings ``s``."""
    return externals(s.external, docker_services(s.ha) if s.docker else LOCAL)


EXTERNAL = external_to(settings)
"""Service → the Airflow connection of a cluster that is not ours: it is only validated."""

SERVICES = tuple(
    replace(svc, needs=()) if svc.name in EXTERNAL else svc
    for svc in (DOCKER if settings.docker else LOCAL)
    if EXTERNAL.get(svc.name) != ""
)
"""The services of this runtime, in the order in which they start; those that are external need nothing of ours to start."""

OWN = tuple(svc for svc in SERVICES if svc.name not in EXTERNAL)
"""Those of them that are ours to start and to stop."""

LAYERS = tuple(dict.fromkeys(svc.layer for svc in SERVICES))

_AIRFLOW: tuple[Service, ...] = (
    Service("airflow-db", "Airflow's metadata database", "control", "postgres", "airflow_db", ("airflow_db",), stop_signal="INT"),
    Service(
        "airflow-api-server", "Airflow API server and UI", "control", "airflow", "airflow", ("airflow",), needs=("airflow-db",)
    ),
    Service("airflow-scheduler", "Airflow scheduler", "control", "airflow", "", (), needs=("airflow-db",)),
    Service("airflow-dag-processor", "Airflow DAG processor", "control", "airflow", "", (), needs=("airflow-db",)),
    Service("airflow-triggerer", "Airflow triggerer", "control", "airflow", "", (), needs=("airflow-db",)),
)


def control_plane(docker: bool = settings.docker, ha: bool = settings.ha) -> tuple[Service, ...]:
    """Airflow's parts. In docker a proxy leads to its API servers; with ``ha`` its tasks run in workers of Celery's."""
    if not docker:
        return _AIRFLOW
    proxy = Service("airflow-proxy", "Way to Airflow's API servers", "control", "airflow-proxy", "", (), ("airflow-api-server",))
    workers = (
        Service("valkey", "Valkey (queue of Airflow's tasks)", "control", "valkey", "valkey", ()),
        Service(
            "airflow-worker",
            "Airflow workers",
            "control",
            "airflow",
            "",
            (),
            needs=("airflow-db", "valkey"),
            containers=("airflow-worker1", "airflow-worker2"),
        ),
    )
    return (*(_several(svc, ha) for svc in _AIRFLOW), proxy, *(workers if ha else ()))


CONTROL_PLANE = control_plane()
"""Airflow itself: it controls the services above, so it never depends on one of them."""

CONN_IDS: dict[str, str] = {svc.name: svc.conn_id for svc in SERVICES}
"""Service name → the Airflow connection through which it is reached."""

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
