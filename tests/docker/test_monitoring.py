"""The monitoring: configurations are accepted by their programs, alerts fire and resolve, dashboards read what exists."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.platform.catalog import control_plane, docker_services
from include.platform.settings import ROOT
from tests.docker.alert_cases import CASES
from tests.docker.monitoring import (
    DASHBOARDS,
    RULES,
    SERVICES,
    VERSION,
    alerts,
    dashboards,
    expressions,
    has_image,
    metric_names,
    panels,
    render,
    rules,
    run,
)

PROMETHEUS = ("prometheus", "prometheus-blackbox-exporter", "prometheus-node-exporter", "prometheus-postgres-exporter")
PASSWORD = "correct-horse"
UNITLESS = {"logs", "alertlist", "text"}
DATASOURCES = yaml.safe_load((SERVICES / "grafana" / "provisioning" / "datasources" / "shudl.yml").read_text())["datasources"]
each_dashboard = pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def prometheus(tmp_path: Path) -> Path:
    """A folder with what Prometheus's entrypoint rendered, in ``run/``, and how it called its programs."""
    for name in ("ca.crt", "trino", "exporter"):
        (tmp_path / name).write_text(PASSWORD)
    env = {
        "PROMETHEUS_DATA_DIR": str(tmp_path / "data"),
        "TLS_CA_FILE": str(tmp_path / "ca.crt"),
        "TRINO_PASSWORD_FILE": str(tmp_path / "trino"),
        "POSTGRES_EXPORTER_PASSWORD_FILE": str(tmp_path / "exporter"),
    }
    done = render("prometheus", tmp_path, env, PROMETHEUS)
    assert done.returncode == 0, done.stderr
    return tmp_path


def scrape_jobs(folder: Path) -> dict[str, dict[str, Any]]:
    return {job["job_name"]: job for job in yaml.safe_load((folder / "run" / "prometheus.yml").read_text())["scrape_configs"]}


def test_prometheus_accepts_its_configuration(prometheus: Path) -> None:
    done = run("promtool", "check", "config", prometheus / "run" / "prometheus.yml", folder=prometheus)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"SUCCESS: \d+ rules found", done.stdout)) == len(RULES), done.stdout


def test_blackbox_accepts_its_configuration_and_has_the_modules_that_are_asked_for(prometheus: Path) -> None:
    file = prometheus / "run" / "blackbox.yml"
    modules = set(yaml.safe_load(file.read_text())["modules"])
    jobs = scrape_jobs(prometheus)
    asked = {static["labels"]["__param_module"] for static in jobs["probe"]["static_configs"]}
    assert asked | set(jobs["certificate"]["params"]["module"]) == modules
    done = run("prometheus-blackbox-exporter", f"--config.file={file}", "--config.check", folder=prometheus)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_password_is_on_a_command_line_or_in_a_rendered_file(prometheus: Path) -> None:
    for program in PROMETHEUS:
        assert PASSWORD not in (prometheus / f"{program}.args").read_text()
        assert PASSWORD not in (prometheus / f"{program}.env").read_text()
    assert all(PASSWORD not in path.read_text() for path in (prometheus / "run").iterdir())


def test_the_exporters_listen_to_nobody_else(prometheus: Path) -> None:
    for program in PROMETHEUS[1:]:
        assert "--web.listen-address=127.0.0.1:" in (prometheus / f"{program}.args").read_text()


def test_every_container_is_watched(prometheus: Path) -> None:
    watched = set()
    for job in scrape_jobs(prometheus).values():
        if job["job_name"] == "certificate":
            continue
        for static in job["static_configs"]:
            for target in static["targets"]:
                host = re.sub(r"^https?://", "", target).split(":")[0]
                watched.add(static.get("labels", {}).get("service", host))
    services = (*docker_services(ha=True), *control_plane(docker=True, ha=True))
    containers = {part for svc in services for part in (svc.containers or (svc.name,))}
    assert watched == containers | {"fencer"}


NEEDED = ("TLS_CA_FILE", "TRINO_PASSWORD_FILE", "POSTGRES_EXPORTER_PASSWORD_FILE")


@pytest.mark.parametrize("missing", NEEDED)
def test_prometheus_names_what_is_missing(missing: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(PASSWORD)
    env = dict.fromkeys(NEEDED, str(tmp_path / "file"))
    env |= {"PROMETHEUS_DATA_DIR": str(tmp_path)}
    done = render("prometheus", tmp_path, {key: value for key, value in env.items() if key != missing}, PROMETHEUS)
    assert done.returncode == 64 and f"{missing} must be set" in done.stderr
    done = render("prometheus", tmp_path, {**env, missing: "/nonexistent"}, PROMETHEUS)
    assert done.returncode == 64 and f"{missing}=/nonexistent cannot be read" in done.stderr


# ── alerts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_alerts_say_how_bad_where_and_what_to_do() -> None:
    book = (ROOT / "docs" / "troubleshooting.md").read_text()
    anchors = {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", book, re.M)}
    wrong = []
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"], name
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        if file != "docs/troubleshooting.md" or anchor not in anchors:
            wrong.append(f"{name}: {rule['annotations']['runbook']}")
    assert not wrong


def test_every_alert_has_a_case_and_every_case_an_alert() -> None:
    assert set(CASES) == set(alerts())


def test_alerts_fire_and_resolve(tmp_path: Path) -> None:
    def firing(name: str, minute: int, count: int) -> dict[str, Any]:
        expr = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
        return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": count}]}

    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "promql_expr_test": [
                firing(name, case.before_min, 0),
                firing(name, case.fires_min, 1),
                firing(name, case.quiet_min, 0),
            ],
        }
        for name, case in CASES.items()
    ]
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(path) for path in RULES], "evaluation_interval": "1m", "tests": tests}))
    done = run("promtool", "test", "rules", file, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_never_up_is_no_alert(tmp_path: Path) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": 'up{job="keycloak", service="keycloak"}', "values": "0x60"}],
        "alert_rule_test": [{"alertname": "ServiceDown", "eval_time": "50m", "exp_alerts": []}],
    }
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(path) for path in RULES], "evaluation_interval": "1m", "tests": [test]}))
    done = run("promtool", "test", "rules", file, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


# ── Alertmanager ────────────────────────────────────────────────────────────────────────────────────────────────────────────

RECEIVERS = {
    "nobody": {},
    "webhook": {"ALERT_WEBHOOK_URL": "https://example.org/hook?a=1&b='x'"},
    "webhook-file": {"ALERT_WEBHOOK_URL_FILE": "secret"},
    "mail": {"ALERT_EMAIL_TO": "a@example.org, b@example.org", "ALERT_SMTP_HOST": "mail.example.org:587"},
    "both": {
        "ALERT_WEBHOOK_URL": "http://example.org/hook",
        "ALERT_EMAIL_TO": "a@example.org",
        "ALERT_SMTP_HOST": "mail.example.org:587",
        "ALERT_SMTP_USER": "o'hara",
        "ALERT_SMTP_PASSWORD_FILE": "secret",
        "ALERT_SMTP_TLS": "false",
    },
}


def alertmanager(folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "secret").write_text("https://example.org/secret")
    env = {key: str(folder / value) if key.endswith("_FILE") else value for key, value in settings.items()}
    return render("alertmanager", folder, {"ALERTMANAGER_DATA_DIR": str(folder), **env}, ("prometheus-alertmanager",))


@pytest.mark.parametrize("settings", RECEIVERS.values(), ids=RECEIVERS)
def test_alertmanager_accepts_its_configuration(settings: dict[str, str], tmp_path: Path) -> None:
    done = alertmanager(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "run" / "alertmanager.yml"
    receiver = yaml.safe_load(file.read_text())["receivers"][0]
    assert set(receiver) - {"name"} == {
        *(["webhook_configs"] if any("WEBHOOK" in key for key in settings) else []),
        *(["email_configs"] if "ALERT_EMAIL_TO" in settings else []),
    }
    done = run("amtool", "check-config", file, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    routed = run("amtool", "config", "routes", "test", f"--config.file={file}", "severity=critical", folder=tmp_path)
    assert routed.stdout.strip() == "team"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ALERT_WEBHOOK_URL": "example.org"}, "ALERT_WEBHOOK_URL=example.org must begin with http"),
        ({"ALERT_WEBHOOK_URL": "http://a", "ALERT_WEBHOOK_URL_FILE": "secret"}, "not both"),
        ({"ALERT_WEBHOOK_URL_FILE": "nothing"}, "cannot be read"),
        ({"ALERT_EMAIL_TO": "a@example.org"}, "ALERT_SMTP_HOST must be set"),
        ({"ALERT_EMAIL_TO": "a@example.org", "ALERT_SMTP_HOST": "mail"}, "ALERT_SMTP_HOST=mail must be host:port"),
        (
            {"ALERT_EMAIL_TO": "a@example.org", "ALERT_SMTP_HOST": "mail:25", "ALERT_SMTP_TLS": "no"},
            "ALERT_SMTP_TLS=no must be true or false",
        ),
        (
            {"ALERT_EMAIL_TO": "a@example.org", "ALERT_SMTP_HOST": "mail:25", "ALERT_SMTP_USER": "a"},
            "ALERT_SMTP_PASSWORD_FILE must be set",
        ),
    ],
)
def test_alertmanager_names_a_setting_that_cannot_be_used(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    done = alertmanager(tmp_path, settings)
    assert done.returncode == 64 and message in done.stderr, done.stderr


def test_what_is_inhibited_exists() -> None:
    config = yaml.safe_load((SERVICES / "alertmanager" / "config" / "alertmanager.yml.template").read_text().replace("${", "#"))
    matchers = [m for rule in config["inhibit_rules"] for m in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for matcher in matchers for name in re.split(r'[|"]', matcher)[1:-1]}
    assert named <= set(alerts())


# ── dashboards ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_expression_is_promql(tmp_path: Path) -> None:
    asked = [e for e in expressions() if e.source == "prometheus"]
    group = {"name": "all", "rules": [{"record": f"e:{n}", "expr": e.text} for n, e in enumerate(asked)]}
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [group]}))
    done = run("promtool", "check", "rules", file, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@each_dashboard
def test_dashboards_are_whole(name: str) -> None:
    dashboard = dashboards()[name]
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    sources = {source["uid"] for source in DATASOURCES}
    for panel in panels(dashboard):
        assert panel["title"] and panel["targets"], panel["id"]
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} <= sources, panel["title"]
        assert panel["type"] in UNITLESS or panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]


@each_dashboard
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboards()[name]["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


def test_dashboards_have_names_of_their_own() -> None:
    made = dashboards().values()
    assert len({d["uid"] for d in made}) == len({d["title"] for d in made}) == len(DASHBOARDS)


def test_datasources_are_where_the_services_are() -> None:
    from include.platform.settings import DOCKER_ADDRESSES, DOCKER_TLS

    for source in DATASOURCES:
        host, port = DOCKER_ADDRESSES[source["uid"]]
        assert source["url"] == f"{'https' if source['uid'] in DOCKER_TLS else 'http'}://{host}:{port}"


def test_grafana_lets_nobody_in_unasked_and_tells_nobody() -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(SERVICES / "grafana" / "grafana.ini")
    assert not ini.getboolean("auth.anonymous", "enabled")
    assert not any(
        ini.getboolean("analytics", name) for name in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates")
    )
    assert ini["security"]["admin_password"] == "$__file{/run/secrets/grafana_admin}"
    assert ini["server"]["protocol"] == "https"
    home = Path(ini["dashboards"]["default_home_dashboard_path"])
    provider = yaml.safe_load((SERVICES / "grafana" / "provisioning" / "dashboards" / "shudl.yml").read_text())["providers"][0]
    assert str(home.parent) == provider["options"]["path"] and home.stem in dashboards()


# ── logs, Kafka UI: their programs are not to be had here, so their files are read ──────────────────────────────────────────


def test_loki_forgets_after_a_week_and_listens_where_it_is_asked() -> None:
    from include.platform.settings import DOCKER_ADDRESSES

    config = yaml.safe_load((SERVICES / "loki" / "config" / "loki.yml").read_text())
    assert config["limits_config"]["retention_period"] == "168h" and config["compactor"]["retention_enabled"]
    assert config["server"]["http_listen_port"] == DOCKER_ADDRESSES["loki"][1]
    assert not config["analytics"]["reporting_enabled"]


def alloy() -> str:
    """Alloy's configuration without its comments, strings emptied."""
    text = (SERVICES / "alloy" / "config" / "config.alloy").read_text()
    return re.sub(r"//[^\n]*", "", re.sub(r'"(?:\\.|[^"\\])*"', lambda m: '"' + re.sub(r"[^\w.]", "_", m[0][1:-1]) + '"', text))


def test_alloys_blocks_are_closed() -> None:
    open_ = []
    pairs = {")": "(", "]": "[", "}": "{"}
    for character in alloy():
        if character in "([{":
            open_.append(character)
        elif character in pairs:
            assert open_ and open_.pop() == pairs[character]
    assert not open_


def test_alloys_components_name_each_other() -> None:
    blocks = {f"{kind}.{label}" for kind, label in re.findall(r'^([\w.]+) "(\w+)" \{', alloy(), re.M)}
    used = set(re.findall(r"\b((?:local|loki)\.\w+\.\w+)\.(?:targets|receiver)", alloy()))
    assert used and used < blocks
    assert blocks - used == {"loki.source.file.containers"}  # nothing comes after it but what it forwards to


def test_kafka_ui_reads_only_and_holds_no_password() -> None:
    from include.platform.settings import DOCKER_ADDRESSES, DOCKER_TLS

    text = (SERVICES / "kafka-ui" / "config" / "application.yml").read_text()
    config, _signing_in = yaml.safe_load_all(text)
    cluster = config["kafka"]["clusters"][0]
    assert cluster["readOnly"] is True
    assert config["spring"]["config"]["import"] == "configtree:/run/secrets/"
    assert set(re.findall(r"password[:=]\s*\"?([^\s;]*?)\"?[;\s]", text)) == {"${kafka_ui}", "${kafka_ui_login}"}

    def url(name: str) -> str:
        host, port = DOCKER_ADDRESSES[name]
        return f"{'https' if name in DOCKER_TLS else 'http'}://{host}:{port}"

    assert cluster["bootstrapServers"] == "${KAFKA_BOOTSTRAP:" + ":".join(map(str, DOCKER_ADDRESSES["kafka"])) + "}"
    assert cluster["schemaRegistry"] == f"{url('registry')}/apis/ccompat/v7"
    assert cluster["kafkaConnect"][0]["address"] == url("connect")
    assert config["server"]["port"] == DOCKER_ADDRESSES["kafka_ui"][1]


# ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus as compose.yaml runs it, alone: its name. Nothing that it watches is there."""
    if not has_image("prometheus"):
        pytest.skip("there is no image of Prometheus: make images IMAGES=prometheus")
    secrets = tmp_path_factory.mktemp("secrets")
    secrets.chmod(0o755)
    for name in ("ca.crt", "trino", "postgres_exporter"):
        (secrets / name).write_text(PASSWORD)
    name = f"shudl-test-prometheus-{os.getpid()}"
    command = ["docker", "run", "--detach", "--name", name, "--user", "1000:1000", "--read-only", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--network", "none", "--volume", f"{secrets}:/run/secrets:ro"]
    command += ["--tmpfs", "/tmp", "--tmpfs", "/run/shudl:uid=1000,gid=1000,mode=0700", "--tmpfs", "/data:uid=1000,gid=1000"]
    for key, value in {
        "TLS_CA_FILE": "/run/secrets/ca.crt",
        "TRINO_PASSWORD_FILE": "/run/secrets/trino",
        "POSTGRES_EXPORTER_PASSWORD_FILE": "/run/secrets/postgres_exporter",
    }.items():
        command += ["--env", f"{key}={value}"]
    try:
        subprocess.run([*command, f"shudl/prometheus:{VERSION}"], check=True, capture_output=True, timeout=120)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, timeout=60)


def inside(container: str, url: str) -> Any:
    done = subprocess.run(["docker", "exec", container, "curl", "-fsS", url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_prometheus_is_healthy_in_its_container(container: str) -> None:
    def health() -> str:
        command = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    deadline = time.monotonic() + 120
    while health() != "healthy":
        assert time.monotonic() < deadline, "Prometheus is not healthy after 120 s"
        time.sleep(1)
    groups = inside(container, "http://localhost:9090/api/v1/rules")["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {r.get("alert") or r["record"] for r in rules()}
    inspected = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, timeout=60).stdout
    assert PASSWORD not in inspected


def test_prometheus_ends_when_one_of_its_processes_does(container: str) -> None:
    kill = "for p in /proc/[0-9]*; do if grep -q node-exporter $p/comm 2>/dev/null; then kill ${p#/proc/}; fi; done"
    subprocess.run(["docker", "exec", container, "bash", "-c", kill.replace("node-exporter", "prometheus-node")], timeout=60)
    ended = subprocess.run(["docker", "wait", container], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0


# ── the running platform ────────────────────────────────────────────────────────────────────────────────────────────────────

JOBS = {
    "ClickHouse": "clickhouse",
    "alertmanager_": "alertmanager",
    "debezium_": "connect",
    "etcd": "etcd",
    "flink": "flink",
    "haproxy_": "haproxy",
    "kafka_connect_": "connect",
    "kafka_": "kafka",
    "minio_": "s3",
    "node_": "node",
    "patroni": "patroni",
    "pg_": "postgres",
    "slot:": "postgres",
    "rest_requests_": "registry",
    "trino_": "trino",
}
"""How the metrics of a job begin."""
SOMETIMES = {"ALERTS", "minio_s3_requests_errors_total", "debezium_snapshot_remainingtablecount"}
"""What exists only after an error, or while something is going on."""


def ask(url: str, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}{path}", timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.URLError as error:
        pytest.fail(f"Prometheus at {url} does not answer: {error}")


@pytest.fixture
def prometheus_url() -> str:
    """The Prometheus of a platform that runs, and has streamed something."""
    url = os.environ.get("SHUDL_PROMETHEUS_URL")
    if not url:
        pytest.skip("SHUDL_PROMETHEUS_URL does not name the Prometheus of a running platform")
    return url


def test_expressions_name_metrics_that_exist(prometheus_url: str) -> None:
    exist = set(ask(prometheus_url, "/api/v1/label/__name__/values"))
    query = urllib.parse.quote("count by (job) (up == 1)")
    up = {sample["metric"]["job"] for sample in ask(prometheus_url, f"/api/v1/query?query={query}")["result"]}
    assert up, "Prometheus reaches none of its targets"
    wrong = []
    for e in expressions():
        if e.source != "prometheus":
            continue
        for name in metric_names(e.text) - exist - SOMETIMES:
            job = next((job for start, job in JOBS.items() if name.startswith(start)), None)
            if job is None or job in up:
                wrong.append(f"{e.where}: {name}")
    assert not wrong


def test_prometheus_evaluates_every_rule(prometheus_url: str) -> None:
    groups = ask(prometheus_url, "/api/v1/rules")["groups"]
    assert not [f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")]
