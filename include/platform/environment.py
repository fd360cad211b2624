"""The variables that each service's entrypoint needs, for the local runtime.

The same names are set by Compose for containers. Secrets are passed as the names of files.
"""

from __future__ import annotations

import os

from include.lake import catalog as lake
from include.platform import external
from include.platform.jre import spark_jre
from include.platform.settings import ROOT, Settings, settings

HEAPS = {
    "nessie": "384m",
    "kafka": "384m",
    "registry": "320m",
    "connect": "640m",
    "trino": "1280m",
    "flink_jobmanager": "768m",
    "flink_taskmanager": "1792m",
    "flink_gateway": "384m",
    "spark_daemon": "128m",
}


def _postgres(s: Settings, name: str, port: str, user: str, database: str, shared_buffers: str) -> dict[str, str]:
    return {
        "POSTGRES_BIN": str(s.engines / "postgres" / "bin"),
        "POSTGRES_HOST": s.host,
        "POSTGRES_PORT": str(s.port(port)),
        "POSTGRES_DATA_DIR": str(s.data(name)),
        "POSTGRES_SUPERUSER_PASSWORD_FILE": str(s.secret_file(f"{name}_superuser")),
        "POSTGRES_USER": user,
        "POSTGRES_DB": database,
        "POSTGRES_PASSWORD_FILE": str(s.secret_file(f"{name}_{user}")),
        "POSTGRES_SHARED_BUFFERS": shared_buffers,
    }


def _lake(s: Settings) -> dict[str, str]:
    return {
        "LAKE_WAREHOUSE": lake.WAREHOUSE,
        "LAKE_LOCATION": lake.LOCATION,
        "LAKE_BRANCH": lake.BRANCH,
        "LAKE_PUBLISHED_REF": lake.PUBLISHED,
        "LAKE_CATALOG_URI": os.environ.get("LAKE_CATALOG_URI") or f"{s.url('nessie')}/iceberg/",
        "LAKE_S3_ENDPOINT": os.environ.get("LAKE_S3_ENDPOINT") or s.url("s3"),
        "LAKE_S3_REGION": lake.REGION,
        "LAKE_S3_ACCESS_KEY_FILE": str(s.secret_file("s3_access_key")),
        "LAKE_S3_SECRET_KEY_FILE": str(s.secret_file("s3_secret_key")),
    }


def _passed(names: tuple[str, ...]) -> dict[str, str]:
    """What of ``names`` this process has: settings of external services (docs/scaling.md)."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _flink(s: Settings, role: str) -> dict[str, str]:
    ports = ("flink_jobmanager_rpc", "flink_taskmanager_rpc", "flink_taskmanager_data", "flink_blob", "flink_metrics")
    return {
        "FLINK_ROLE": role,
        "JAVA_HOME": str(s.engines / "jre21"),
        "FLINK_HOME": str(s.engines / "flink"),
        "FLINK_HOST": s.host,
        "FLINK_DATA_DIR": str(s.data("flink")),
        "FLINK_PORT": str(s.port("flink")),
        **{f"{name.upper()}_PORT": str(s.port(name)) for name in (*ports, "flink_taskmanager_metrics", "flink_gateway")},
        "FLINK_JOBMANAGER_MEMORY": HEAPS["flink_jobmanager"],
        "FLINK_TASKMANAGER_MEMORY": HEAPS["flink_taskmanager"],
        "FLINK_GATEWAY_HEAP": HEAPS["flink_gateway"],
        "FLINK_TASK_SLOTS": "16",
        "FLINK_CHECKPOINT_INTERVAL": "2s",
        **_passed((*external.KAFKA_LOGIN, *external.TRUST)),
        **_lake(s),
    }


def _spark(s: Settings, role: str) -> dict[str, str]:
    return {
        "SPARK_ROLE": role,
        "JAVA_HOME": str(ROOT / "docker" / "services" / "spark" / "jre"),
        "SPARK_JRE": str(spark_jre(s)),
        "SPARK_HOME": str(s.engines / "spark"),
        "SPARK_HOST": s.host,
        "SPARK_DATA_DIR": str(s.data("spark")),
        "SPARK_MASTER_PORT": str(s.port("spark")),
        "SPARK_MASTER_WEBUI_PORT": str(s.port("spark_ui")),
        "SPARK_WORKER_PORT": str(s.port("spark_worker")),
        "SPARK_WORKER_WEBUI_PORT": str(s.port("spark_worker_ui")),
        "SPARK_WORKER_CORES": "2",
        "SPARK_WORKER_MEMORY": "1536m",
        "SPARK_DAEMON_MEMORY": HEAPS["spark_daemon"],
        "SPARK_AUTH_SECRET_FILE": str(s.secret_file("spark_auth")),
        "LAKE_S3_REGION": lake.REGION,
    }


def _airflow(s: Settings, role: str) -> dict[str, str]:
    return {
        "AIRFLOW_ROLE": role,
        "AIRFLOW_PYTHON": str(s.python("airflow")),
        "AIRFLOW_HOST": s.host,
        "AIRFLOW_PORT": str(s.port("airflow")),
        "AIRFLOW_DATA_DIR": str(s.data("airflow")),
        "AIRFLOW_LOGS_DIR": str(s.logs / "airflow"),
        "AIRFLOW_DB_HOST": s.host,
        "AIRFLOW_DB_PORT": str(s.port("airflow_db")),
        "AIRFLOW_DB_PASSWORD_FILE": str(s.secret_file("airflow_db_airflow")),
        **{
            f"{name.upper()}_FILE": str(s.secret_file(name))
            for name in ("airflow_fernet", "airflow_jwt", "airflow_api", "airflow_admin")
        },
        "SHUDL_HOME": str(s.home),
        "SHUDL_PORT_BASE": str(s.port_base),
        **({"SHUDL_SPARK_JAVA_HOME": str(s.spark_java_home)} if s.spark_java_home else {}),
        "SHUDL_PIPELINES": str(s.pipelines),
        **external.told(),
    }


def service_environment(name: str, s: Settings = settings) -> dict[str, str]:
    """Variables for the entrypoint of the service ``name``. Makes the folders and secrets that they name."""
    jre21, jre25 = str(s.engines / "jre21"), str(s.engines / "jre25")
    kafka = {
        "JAVA_HOME": jre21,
        "KAFKA_LIBS": str(s.engines / "kafka" / "libs"),
        "KAFKA_HOST": s.host,
        "KAFKA_PORT": str(s.port("kafka")),
    }
    match name:
        case "postgres":
            env = _postgres(s, "postgres", "postgres", "flights", "flights", "128MB")
        case "airflow-db":
            env = _postgres(s, "airflow_db", "airflow_db", "airflow", "airflow", "64MB")
        case "s3":
            env = {
                "WEED_BIN": str(s.engines / "seaweedfs" / "bin" / "weed"),
                "S3_HOST": s.host,
                "S3_DATA_DIR": str(s.data("s3")),
                "S3_ACCESS_KEY_FILE": str(s.secret_file("s3_access_key")),
                "S3_SECRET_KEY_FILE": str(s.secret_file("s3_secret_key")),
                **{
                    f"{port.upper()}_PORT": str(s.port(port))
                    for port in (
                        "s3",
                        "s3_master",
                        "s3_master_grpc",
                        "s3_volume",
                        "s3_volume_grpc",
                        "s3_filer",
                        "s3_filer_grpc",
                        "s3_grpc",
                    )
                },
            }
        case "nessie":
            env = {
                "JAVA_HOME": jre21,
                "NESSIE_JAR": str(s.engines / "nessie" / "nessie.jar"),
                "NESSIE_HOST": s.host,
                "NESSIE_PORT": str(s.port("nessie")),
                "NESSIE_MANAGEMENT_PORT": str(s.port("nessie_management")),
                "NESSIE_DATA_DIR": str(s.data("nessie")),
                "NESSIE_HEAP": HEAPS["nessie"],
                **_lake(s),
            }
        case "kafka":
            env = {
                **kafka,
                "KAFKA_CONTROLLER_PORT": str(s.port("kafka_controller")),
                "KAFKA_DATA_DIR": str(s.data("kafka")),
                "KAFKA_HEAP": HEAPS["kafka"],
                "KAFKA_RETENTION_HOURS": "168",
            }
        case "registry":
            env = {
                "JAVA_HOME": jre21,
                "REGISTRY_HOME": str(s.engines / "registry"),
                "REGISTRY_HOST": s.host,
                "REGISTRY_PORT": str(s.port("registry")),
                "REGISTRY_MANAGEMENT_PORT": str(s.port("registry_management")),
                "REGISTRY_DATA_DIR": str(s.data("registry")),
                "REGISTRY_HEAP": HEAPS["registry"],
            }
        case "connect":
            env = {
                **kafka,
                "CONNECT_PLUGINS": str(s.engines / "connect" / "plugins"),
                "CONNECT_HOST": s.host,
                "CONNECT_PORT": str(s.port("connect")),
                "CONNECT_HEAP": HEAPS["connect"],
                "CONNECT_SECRETS_DIR": str(s.connect_secrets),
                **_passed(("KAFKA_BOOTSTRAP", *external.KAFKA_LOGIN, *external.TRUST)),
            }
        case "flink-jobmanager" | "flink-taskmanager" | "flink-sql-gateway":
            env = _flink(s, name.removeprefix("flink-"))
        case "spark-master" | "spark-worker":
            env = _spark(s, name.removeprefix("spark-"))
        case "trino":
            env = {
                "JAVA_HOME": jre25,
                "TRINO_HOME": str(s.engines / "trino"),
                "TRINO_HOST": s.host,
                "TRINO_PORT": str(s.port("trino")),
                "TRINO_DATA_DIR": str(s.data("trino")),
                "TRINO_HEAP": HEAPS["trino"],
                "TRINO_QUERY_MEMORY": "600MB",
                **_lake(s),
            }
        case "clickhouse":
            env = {
                "CHDB_PYTHON": str(s.python("chdb")),
                "CLICKHOUSE_HOST": s.host,
                "CLICKHOUSE_PORT": str(s.port("clickhouse")),
                "CLICKHOUSE_DATA_DIR": str(s.data("clickhouse")),
                "CLICKHOUSE_USER": "shudl",
                "CLICKHOUSE_PASSWORD_FILE": str(s.secret_file("clickhouse")),
                **({"CLICKHOUSE_BIN": os.environ["CLICKHOUSE_BIN"]} if "CLICKHOUSE_BIN" in os.environ else {}),
                **_lake(s),
            }
        case "airflow-api-server" | "airflow-scheduler" | "airflow-dag-processor" | "airflow-triggerer":
            env = _airflow(s, name.removeprefix("airflow-"))
        case _:
            raise KeyError(name)
    return {"RUN_DIR": str(s.run(name)), **env}
