"""Spark: what its master says, and applications submitted so that no name has two drivers.

Applications run in client mode: the driver is a process of this machine, a child of the one that submits. It passes
through :mod:`include.platform.spark_driver`, which see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from include.lake.catalog import REGION, Lake
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.jre import spark_java_version, spark_jre
from include.platform.settings import ROOT, Settings, settings

SERVICE = ROOT / "docker" / "services" / "spark"
TAIL = 20
"""Lines of a failed driver's output that its error repeats."""


class SparkError(RuntimeError):
    """An application failed, with the end of its driver's output, or cannot be submitted."""


class Master:
    """The standalone master whose web UI is at ``url``."""

    def __init__(self, url: str, timeout_s: float = 10) -> None:
        self.url = url
        self._timeout_s = timeout_s

    def state(self) -> dict[str, Any]:
        """``{status, workers: [{state, cores, memory, …}], activeapps: [{id, name, …}], completedapps, …}``."""
        return httpx.get(f"{self.url}/json/", timeout=self._timeout_s).raise_for_status().json()

    def workers(self) -> list[dict[str, Any]]:
        """The workers that are alive."""
        return [worker for worker in self.state()["workers"] if worker["state"] == "ALIVE"]

    def applications(self, name: str) -> list[str]:
        """Ids of the applications called ``name`` that are not over."""
        return [app["id"] for app in self.state()["activeapps"] if app["name"] == name]


def master_url(endpoint: Endpoint) -> str:
    return f"spark://{endpoint.address}"


def web_ui(endpoint: Endpoint) -> str:
    """Address of the master's web UI. Raises :class:`SparkError` for a connection that does not say it."""
    try:
        return endpoint.extra["web_ui"]
    except KeyError:
        raise SparkError(
            f'connection {endpoint.conn_id} does not say where the master\'s web UI is: add {{"web_ui": "http://…"}} to its extra'
        ) from None


def properties(endpoints: Endpoints, s: Settings = settings) -> dict[str, str]:
    """The settings of every application. They hold secrets."""
    secret = endpoints["shudl_spark"].password
    lake = Lake.from_endpoints(endpoints)
    access = {"spark.authenticate": "true", "spark.authenticate.secret": secret, "spark.network.crypto.enabled": "true"}
    return {
        **(access if secret else {}),
        "spark.driver.host": s.host,
        "spark.driver.bindAddress": s.bind,
        "spark.driver.memory": "640m",
        "spark.driver.defaultJavaOptions": "-XX:+UseSerialGC",
        "spark.executor.memory": "640m",
        "spark.executor.cores": "1",
        "spark.executor.defaultJavaOptions": "-XX:+UseSerialGC",
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.warehouse.dir": str(s.data("spark") / "warehouse"),
        **lake.spark_conf(),
        **lake.hadoop_conf(),
    }


def properties_file(endpoints: Endpoints, s: Settings = settings) -> Path:
    """:func:`properties` as a file for ``--properties-file``, readable by its owner only."""
    path = s.run("spark-driver") / "spark.conf"
    lines = "".join(f"{key} {value}\n" for key, value in properties(endpoints, s).items())
    if not path.exists() or path.read_text() != lines:
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(lines)
        partial.replace(path)
    return path


def driver_environment(name: str, endpoints: Endpoints, s: Settings = settings) -> dict[str, str]:
    """What the process of ``spark-submit`` needs in its environment, for the application called ``name``.

    Raises :class:`include.platform.jre.NoJre`: a driver needs a Java here, wherever the cluster is.
    """
    spark_java_version(s)
    local = s.data("spark") / "local"
    local.mkdir(exist_ok=True)
    # In a container nothing in /tmp may be run, and Spark answers its executors with a library that it unpacks.
    unpacks = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} -Djava.io.tmpdir={local}".strip()
    return {
        **({"JAVA_TOOL_OPTIONS": unpacks} if s.docker else {}),
        "JAVA_HOME": str(SERVICE / "jre"),
        "SPARK_JRE": str(spark_jre(s)),
        "SPARK_HOME": str(s.engines / "spark"),
        "SPARK_CONF_DIR": str(s.run("spark-driver")),
        "SPARK_LOCAL_IP": s.host,
        "SPARK_LOCAL_DIRS": str(local),
        "PYSPARK_PYTHON": str(s.python("spark")),
        "AWS_REGION": REGION,
        "PATH": f"{SERVICE / 'bin'}:{os.environ['PATH']}",
        "SPARK_DRIVER_PYTHON": sys.executable,
        "SHUDL_SPARK_NAME": name,
        "SHUDL_SPARK_MASTER_UI": web_ui(endpoints["shudl_spark"]),
        "SHUDL_HOME": str(s.home),
    }


def submit(
    name: str,
    application: Path,
    arguments: list[str],
    endpoints: Endpoints,
    conf: dict[str, str] | None = None,
    timeout_s: float = 300,
    s: Settings = settings,
) -> str:
    """Run a PySpark file on the cluster to its end; what it printed. Raises :class:`SparkError`."""
    command = ["spark-submit", "--master", master_url(endpoints["shudl_spark"]), "--name", name]
    command += ["--properties-file", str(properties_file(endpoints, s))]
    command += [word for key, value in (conf or {}).items() for word in ("--conf", f"{key}={value}")]
    environment = {**os.environ, **driver_environment(name, endpoints, s)}
    try:
        done = subprocess.run(
            [str(SERVICE / "bin" / command[0]), *command[1:], str(application), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise SparkError(f"{name} did not end within {timeout_s:.0f} s") from None
    if done.returncode:
        said = "\n".join((done.stderr + done.stdout).splitlines()[-TAIL:])
        raise SparkError(f"{name} ended with code {done.returncode}:\n{said}")
    return done.stdout
