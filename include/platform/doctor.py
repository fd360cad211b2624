"""``./shudl doctor``: the machine, and what of ShuDL runs on it, checked without changing anything.

:func:`examine` gives every check; :func:`before_start` those that can keep services from starting. In docker both look at
what this container was given; ``make check-docker`` looks at the host.
"""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path

import psutil

from include.platform import machine
from include.platform.catalog import BY_NAME, EXTERNAL, OWN
from include.platform.connections import airflow_database
from include.platform.endpoints import local_endpoints
from include.platform.external import problems
from include.platform.jre import NoJre, spark_java_version, spark_jre
from include.platform.machine import Check
from include.platform.runtime import RuntimeUnavailable, runtime
from include.platform.settings import DOCKER_CA, DOCKER_SECRETS, Settings, SettingsError, settings
from include.platform.supervisor import Supervisor, port_holder, taken_ports

SECRETS = (
    "airflow_admin",
    "airflow_db_airflow",
    "clickhouse",
    "grafana_admin",
    "kafka_airflow",
    "kafka_ui_login",
    "keycloak_admin",
    "mask_salt",
    "nessie_token",
    "patroni_rest",
    "postgres_flights",
    "s3_access_key",
    "s3_secret_key",
    "spark_auth",
    "trino",
)
"""What the command line, like Airflow, is given in docker."""
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables by which Python's clients trust an authority."""


def examine(s: Settings = settings) -> list[Check]:
    """Every check, in the order in which a person would look."""
    if s.docker:
        return [*_container(s), *_external(s), Check("host", "ok", "not looked at from here: make check-docker does")]
    return [
        machine.system(),
        machine.python(),
        machine.cpu(),
        machine.memory(_ours(s)),
        machine.disk(s),
        machine.inodes(s),
        machine.state_folder(s),
        *machine.paths(s),
        machine.installation(s),
        _spark(s),
        *_ports(s),
        machine.ephemeral_ports(s),
        machine.open_files(),
        machine.clock(s),
        machine.user(),
        *_external(s),
    ]


def before_start(s: Settings = settings) -> list[Check]:
    """What would keep services from starting: only the checks that fail."""
    checks = _container(s) if s.docker else _host(s)
    return [check for check in checks if check.status == "fail"]


def _host(s: Settings) -> list[Check]:
    return [
        machine.disk(s),
        machine.inodes(s),
        machine.state_folder(s),
        *machine.paths(s),
        *_ports(s),
        machine.open_files(),
        machine.clock(s),
        machine.user(),
    ]


def _container(s: Settings) -> list[Check]:
    return [_docker_filter(s), _secrets(s), _trust(), machine.state_folder(s), machine.clock(s)]


def _external(s: Settings) -> list[Check]:
    """Whether each external service has a connection that says enough, and as the settings do. Needs Airflow's database."""
    if not EXTERNAL:
        return []
    import psycopg

    told = ", ".join(f"{name} by {conn_id}" for name, conn_id in EXTERNAL.items() if conn_id)
    try:
        psycopg.connect(**airflow_database(s)).close()
    except psycopg.Error:
        found = f"{told}: not looked at, Airflow's database does not run"
        return [Check("external services", "warn", found, "./shudl up starts it, and looks")]
    if wrong := problems(local_endpoints(s), s):
        return [Check("external services", "fail", text, "docs/scaling.md tells what to set") for text in wrong]
    return [Check("external services", "ok", told)]


def _docker_filter(s: Settings) -> Check:
    asked = OWN[0]
    try:
        state = runtime(s).state(asked.name)
    except RuntimeUnavailable as error:
        return Check("docker-filter", "fail", str(error), "see docker compose -f docker/compose.yaml logs docker-filter")
    return Check("docker-filter", "ok", f"answers ({asked.title} is {state})")


def _secrets(s: Settings) -> Check:
    lacking = []
    for name in SECRETS:
        try:
            s.secret_file(name)
        except SettingsError:
            lacking.append(name)
    if lacking:
        advice = "make secrets makes what is missing; files are readable by uid 1000, and docker/compose.yaml gives them to cli"
        return Check("secrets", "fail", f"cannot be read in {DOCKER_SECRETS}: {', '.join(lacking)}", advice)
    return Check("secrets", "ok", f"all {len(SECRETS)} can be read")


def _trust() -> Check:
    """Whether this process trusts the platform's authority, and until when it may."""
    try:
        known = ssl.create_default_context(cafile=str(DOCKER_CA)).get_ca_certs()
        ends = min(ssl.cert_time_to_seconds(str(authority["notAfter"])) for authority in known)
    except (OSError, ValueError) as error:
        return Check("trust", "fail", f"{DOCKER_CA}: {error}", "make certificates makes it; then start the containers anew")
    until = time.strftime("%Y-%m-%d", time.gmtime(ends))
    if ends < time.time():
        return Check("trust", "fail", f"the authority ended on {until}", "make certificates makes another (docs/docker.md)")
    unset = [name for name in TRUST if os.environ.get(name) != str(DOCKER_CA)]
    if unset:
        return Check("trust", "fail", f"{' and '.join(unset)} is not {DOCKER_CA}", "run the command by compose's service cli")
    return Check("trust", "ok", f"the platform's authority, until {until}")


def _ours(s: Settings) -> int:
    """Resident bytes of the platform, if it runs."""
    pid = Supervisor(s).pid() if s.home.exists() else None
    if pid is None:
        return 0
    total = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _spark(s: Settings) -> Check:
    try:
        version = spark_java_version(s)
    except NoJre as error:
        reason, _, way_out = str(error).partition("; ")
        return Check("Java for Spark", "warn", f"none: {reason}", f"all but Spark works without; {way_out}")
    return Check("Java for Spark", "ok", f"{version} ({spark_jre(s)})")


def leftovers(s: Settings = settings) -> dict[psutil.Process, str]:
    """Processes of this checkout that no supervisord looks after any more, and the service that each belongs to."""
    pid = Supervisor(s).pid() if s.home.exists() else None
    looked_after = {p.pid for p in psutil.Process(pid).children(recursive=True)} if pid else set()
    found = {}
    for process in psutil.process_iter():
        if process.pid in looked_after:
            continue
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue
        name = env.get("SUPERVISOR_PROCESS_NAME")
        if name in BY_NAME and env.get("RUN_DIR", "").startswith(f"{s.home}/run/"):
            found[process] = name
    return found


def _neighbour(s: Settings) -> Path | None:
    """The configuration of another ShuDL whose supervisord listens in our block of ports."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "supervisor.supervisord" not in command or "-c" not in command[:-1]:
            continue
        config = Path(command[command.index("-c") + 1])
        try:
            if not config.is_relative_to(s.home) and f"port={s.host}:{s.port('supervisor')}\n" in config.read_text():
                return config
        except OSError:
            continue
    return None


def _ports(s: Settings) -> list[Check]:
    name = f"ports {s.port_base}–{s.port_base + 99}"
    supervisor = Supervisor(s)
    runs = s.home.exists() and supervisor.running()
    alive = {info["name"] for info in supervisor.rpc.supervisor.getAllProcessInfo() if info["pid"]} if runs else set()
    problems = taken_ports([name for name in BY_NAME if name not in alive and name not in EXTERNAL], s)
    if not runs and (holder := port_holder(s.port("supervisor"), s)):
        problems.insert(0, f"port {s.port('supervisor')} (supervisord) is taken by {holder}")
    if not problems:
        return [Check(name, "ok", "used by ShuDL" if runs else "free")]
    base = 22000 if s.port_base != 22000 else 23000
    advice = f"end that program, or use another block of ports: SHUDL_PORT_BASE={base}"
    if not runs and (other := _neighbour(s)):
        advice = f"another ShuDL runs there ({other.parents[2]}): stop it, or use another block of ports: SHUDL_PORT_BASE={base}"
    elif leftovers(s):
        advice = "processes of this checkout have outlived their supervisor: ./shudl down ends them"
    return [Check(name, "fail", problem, advice) for problem in problems]
