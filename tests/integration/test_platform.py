"""The platform as `./shudl up` leaves it."""

from __future__ import annotations

import json
import stat

from include.platform.catalog import CONTROL_PLANE, SERVICES
from include.platform.evidence import latest_evidence
from include.platform.settings import settings
from tests.live import Platform, shudl


def test_bootstrap_validates_every_service(platform: Platform) -> None:
    evidence = latest_evidence("platform_bootstrap")
    assert evidence is not None and evidence["ok"]
    assert set(evidence["services"]) == {service.name for service in SERVICES}
    for name, deeds in evidence["services"].items():
        assert {deed: seen["state"] for deed, seen in deeds.items()} == dict.fromkeys(("start", "healthy", "works"), "success"), (
            name
        )


def test_second_bootstrap_only_validates(platform: Platform) -> None:
    pids = {service.name: platform.supervisor.info(service.name)["pid"] for service in SERVICES}
    evidence = platform.run_dag("platform_bootstrap")
    assert evidence is not None
    assert {name: deeds["start"]["was"] for name, deeds in evidence["services"].items()} == dict.fromkeys(pids, "running")
    assert {service.name: platform.supervisor.info(service.name)["pid"] for service in SERVICES} == pids


def test_up_again_changes_nothing(platform: Platform) -> None:
    pids = {s.name: platform.supervisor.info(s.name)["pid"] for s in (*CONTROL_PLANE, *SERVICES)}
    done = shudl("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {s.name: platform.supervisor.info(s.name)["pid"] for s in (*CONTROL_PLANE, *SERVICES)} == pids


def test_status_as_json(platform: Platform) -> None:
    done = shudl("status", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    states = {service["name"]: service["state"] for service in status["services"]}
    assert states == dict.fromkeys((s.name for s in (*CONTROL_PLANE, *SERVICES)), "healthy")
    assert all(
        service["url"] for service in status["services"] if service["name"] in ("trino", "clickhouse", "airflow-api-server")
    )
    assert [pipeline["source"] for pipeline in status["pipelines"]] == ["flights"]


def test_every_service_listens_on_loopback_only(platform: Platform) -> None:
    import psutil

    supervisor = psutil.Process(platform.supervisor.pid())
    ours = {process.pid for process in supervisor.children(recursive=True)} | {supervisor.pid}
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in ours
    }
    assert addresses and addresses <= {"127.0.0.1", "::1"}


def test_secrets_are_private_and_in_no_process_list_or_log(platform: Platform) -> None:
    import psutil

    files = [path for path in (settings.home / "secrets").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    # The S3 access key is a user's name; its secret is the other one.
    secrets = {path.read_text().strip() for path in files if path.name != "s3_access_key"}
    assert len(secrets) > 5 and all(len(secret) >= 32 for secret in secrets)
    supervisor = psutil.Process(platform.supervisor.pid())
    for process in [supervisor, *supervisor.children(recursive=True)]:
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:  # a task that ended meanwhile
            continue
        assert not [secret for secret in secrets if secret in line], f"a secret is in the command line of pid {process.pid}"
    for log in settings.logs.rglob("*.log"):
        text = log.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], f"a secret is in {log}"


def test_stop_and_start_again(platform: Platform) -> None:
    """`platform_stop` ends every service and leaves Airflow; bootstrap brings them back, and with them Flink's jobs."""
    jobs = {job["name"] for job in platform.jobs()}
    platform.run_dag("platform_stop")
    assert {s.name: platform.supervisor.state(s.name) for s in SERVICES} == dict.fromkeys((s.name for s in SERVICES), "stopped")
    evidence = platform.run_dag("platform_bootstrap")
    assert evidence is not None
    assert {deeds["start"]["was"] for deeds in evidence["services"].values()} == {"stopped"}
    platform.eventually(lambda: {job["name"] for job in platform.jobs()} == jobs, 180, f"{len(jobs)} jobs are back")


def test_sql_on_every_engine(platform: Platform) -> None:
    for engine in ("postgres", "trino", "clickhouse", "flink"):
        done = shudl("sql", engine, "SELECT 40 + 2 AS answer", "--json")
        assert done.returncode == 0, f"{engine}: {done.stdout}{done.stderr}"
        assert "42" in done.stdout, engine
    done = shudl("sql", "trino", "SELECT nonsense")
    assert done.returncode == 1 and "nonsense" in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
