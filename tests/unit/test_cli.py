"""The command line without a platform: help, exit codes, errors, rendering."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import socket
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from include.cdc.status import HopReading
from include.cli import phases as phases_module
from include.cli.app import app
from include.cli.board import ServiceBoard
from include.cli.console import CliError, interruptible, seconds, size
from include.cli.dags import RunBoard, RunFailed, span
from include.cli.demo import proof_table
from include.cli.hops import HopBoard
from include.cli.processes import MemoryPeak, children, pss, rss, tree
from include.cli.sql import Answer, cause, plain, show, unique
from include.cli.state import Parallel
from include.cli.up import _failure_text, service_step, show_tasks, stop_order
from include.platform.airflow import may_define
from include.platform.catalog import BY_NAME, CONTROL_PLANE, SERVICES
from include.platform.settings import PORT_OFFSETS, ROOT, Settings
from tests.ports import free_block

COMMANDS = ("demo", "up", "down", "status", "logs", "sql", "doctor", "check", "run", "source", "password")


def shudl(*arguments: str, home: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a program of its own, with a state folder of its own."""
    env = os.environ | {"SHUDL_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "100"} | variables
    return subprocess.run(
        [sys.executable, "-m", "include.cli", *arguments],
        env=env,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


# ── help and exit codes ──────────────────────────────────────────────────────────────────────────────────


def test_help_names_every_command_and_the_exit_codes_even_with_a_bad_setting(tmp_path: Path) -> None:
    done = shudl("--help", home=tmp_path, SHUDL_PORT_BASE="nonsense")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"│ {command} " in done.stdout
    assert "3 not running or not healthy" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Exit codes" in done.output


def test_help_loads_nothing_heavy() -> None:
    program = "import sys, include.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"airflow", "pyiceberg", "psycopg", "httpx", "boto3", "yaml", "include.platform.settings"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nosuch",), "nosuch"),
        (("sql", "mysql", "SELECT 1"), "mysql"),
        (("sql", "postgres", "SELECT 1", "--json", "--csv"), "choose one"),
        (("sql", "postgres", "  "), "empty"),
        (("logs", "nosuch"), "flink-taskmanager"),
        (("up", "--timeout", "1"), "10"),
    ],
)
def test_wrong_usage_is_code_2_and_named(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    done = shudl(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr


def test_our_errors_are_one_paragraph(tmp_path: Path) -> None:
    done = shudl("status", home=tmp_path, SHUDL_PORT_BASE="80")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "SHUDL_PORT_BASE=80: must be a number from 1024 to 65435\n"


def test_unexpected_errors_are_one_line_and_keep_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a file where a folder should be")
    done = shudl("status", home=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "logs" / "cli.log") in done.stderr
    assert "Traceback" in (tmp_path / "logs" / "cli.log").read_text()


def test_what_does_not_run_is_code_3(tmp_path: Path) -> None:
    done = shudl("sql", "postgres", "-", home=tmp_path, stdin="SELECT 1", SHUDL_PORT_BASE=str(free_block()))
    assert done.returncode == 3
    assert "PostgreSQL (source database) does not answer" in done.stderr
    assert "./shudl up" in done.stderr


def test_status_of_nothing(tmp_path: Path) -> None:
    done = shudl("status", "--json", home=tmp_path, SHUDL_PORT_BASE=str(free_block()))
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert [service["name"] for service in found["services"]] == list(BY_NAME)
    assert {service["state"] for service in found["services"]} == {"stopped"}
    assert (found["healthy"], found["pipelines"]) == (False, [])


def test_down_with_nothing_to_stop_is_no_error(tmp_path: Path) -> None:
    done = shudl("down", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Nothing was running.\n")


def test_passwords(tmp_path: Path) -> None:
    assert shudl("password", "airflow", home=tmp_path).returncode == 3
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "airflow_admin").write_text("s3cret")
    done = shudl("password", "airflow", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "s3cret\n", "user admin\n")


def test_ctrl_c_says_how_to_go_on() -> None:
    with pytest.raises(CliError, match=r"Interrupted\. Run it again") as caught, interruptible("Run it again."):
        raise KeyboardInterrupt
    assert caught.value.code == 130


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_names_every_problem_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("source: shop\nconnection: shop_db\ntables:\n  public.orders:\n    mode: mirror\n")
    (tmp_path / "bad.yml").write_text("source: Shop\nconnection: shop_db\ntables:\n  orders:\n    mode: copy\n")
    done = shudl("check", "--offline", str(tmp_path / "good.yml"), str(tmp_path / "bad.yml"), home=tmp_path)
    assert done.returncode == 1
    assert "good.yml: source shop, 1 table through connection shop_db" in done.stdout
    assert "bad.yml:1: source" in done.stderr
    assert "bad.yml:5: tables.orders.mode" in done.stderr


def test_the_checked_in_pipelines_are_right(tmp_path: Path) -> None:
    done = shudl("check", "--offline", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_source_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    done = shudl("check", home=tmp_path, SHUDL_PORT_BASE=str(free_block()))
    assert done.returncode == 1
    assert "flights.yml:4: connection: 127.0.0.1:" in done.stderr
    assert "Connection refused; start the database, or correct connection flights_db" in done.stderr


def test_no_pipeline_files(tmp_path: Path) -> None:
    done = shudl("check", home=tmp_path, SHUDL_PIPELINES=str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"There is no pipeline file in {tmp_path / 'none'}" in done.stdout


def test_a_run_without_airflow_is_told(tmp_path: Path) -> None:
    done = shudl("run", "cdc_flights", home=tmp_path, SHUDL_PORT_BASE=str(free_block()))
    assert done.returncode == 1
    assert "start it with ./shudl up" in done.stderr


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────


def test_doctor_changes_nothing_and_names_what_is_wrong(tmp_path: Path) -> None:
    base = str(free_block())
    home = tmp_path / "with space"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(base) + PORT_OFFSETS["kafka"]))
        taken.listen()
        done = shudl("doctor", "--json", home=home, SHUDL_PORT_BASE=base)
    found = json.loads(done.stdout)
    failed = {check["name"]: check for check in found["checks"] if check["status"] == "fail"}
    assert done.returncode == 1
    assert not found["ok"]
    assert "' '" in failed["path"]["found"]
    kafka = failed[f"ports {base}–{int(base) + 99}"]
    assert f"port {int(base) + PORT_OFFSETS['kafka']} (kafka: kafka) is taken by pid {os.getpid()}" in kafka["found"]
    assert "SHUDL_PORT_BASE=" in kafka["advice"]
    assert all(check["advice"] for check in found["checks"] if check["status"] != "ok")
    assert not home.exists()


def test_doctor_for_people(tmp_path: Path) -> None:
    done = shudl("doctor", home=tmp_path / "home", SHUDL_PORT_BASE=str(free_block()))
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert "cores" in done.stdout
    assert not (tmp_path / "home").exists()


def test_a_state_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = shudl("up", home=tmp_path / "file" / "home", SHUDL_PORT_BASE=str(free_block()))
    assert done.returncode == 1
    assert "Nothing was started." in done.stderr
    assert "is not a folder" in done.stderr


def test_up_names_every_taken_port_before_anything_starts(tmp_path: Path) -> None:
    base = str(free_block())
    with socket.socket() as kafka, socket.socket() as airflow:
        for taken, name in ((kafka, "kafka"), (airflow, "airflow")):
            taken.bind(("127.0.0.1", int(base) + PORT_OFFSETS[name]))
            taken.listen()
        done = shudl("up", home=tmp_path / "home", SHUDL_PORT_BASE=base)
    assert done.returncode == 1
    for name in ("(kafka: kafka)", "(airflow-api-server: airflow)"):
        assert name in done.stderr
    assert done.stderr.count("SHUDL_PORT_BASE=") == 1
    assert not (tmp_path / "home").exists()


# ── order, tasks, boards ─────────────────────────────────────────────────────────────────────────────────


def test_services_stop_before_what_they_need() -> None:
    waves = stop_order([*CONTROL_PLANE, *SERVICES])
    position = {name: index for index, wave in enumerate(waves) for name in wave}
    assert set(position) == set(BY_NAME)
    for service in BY_NAME.values():
        for needed in (*service.needs, *service.check_needs):
            assert position[service.name] < position[needed], f"{service.name} needs {needed}"
    assert position["airflow-scheduler"] == 0


@pytest.mark.parametrize(
    ("task_id", "expected"),
    [
        ("storage.postgres.healthy", ("postgres", "healthy")),
        ("compute.flink-sql-gateway.works", ("flink-sql-gateway", "works")),
        ("evidence", None),
        ("storage.postgres.other", None),
    ],
)
def test_tasks_of_services(task_id: str, expected: tuple[str, str] | None) -> None:
    assert service_step(task_id) == expected


def task(task_id: str, state: str | None, **more: object) -> dict[str, object]:
    return {"task_id": task_id, "state": state, "try_number": 1, "map_index": -1, **more}


def test_the_board_tells_what_the_tasks_do(capsys: pytest.CaptureFixture[str]) -> None:
    board = ServiceBoard("Bootstrap", [service.name for service in SERVICES])
    times = {"start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:00:07.5Z"}
    tasks = [
        task("storage.postgres.start", "success", **times),
        task("storage.postgres.healthy", "success"),
        task("storage.postgres.works", "success"),
        task("storage.s3.start", "success"),
        task("storage.s3.healthy", "failed"),
        task("storage.s3.works", "upstream_failed"),
        task("catalog.nessie.start", "upstream_failed"),
        task("catalog.nessie.healthy", "upstream_failed"),
        task("catalog.nessie.works", "upstream_failed"),
        task("messaging.kafka.start", "success"),
        task("messaging.kafka.healthy", "deferred"),
        task("messaging.kafka.works", None),
        task("messaging.registry.start", None),
    ]
    show_tasks(board, tasks)
    show_tasks(board, tasks)
    states = {name: (row.state, row.note) for name, row in board.rows.items()}
    assert states["postgres"] == ("works", "")
    assert states["s3"] == ("failed", "at healthy")
    assert states["nessie"] == ("skipped", "needs s3")
    assert states["kafka"] == ("waiting for health", "")
    assert states["registry"] == ("waiting", "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4, "one line for each change, none for what stays"
    assert "postgres" in lines[0]
    assert "works after 7.5 s" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_a_failed_bootstrap_names_service_reason_and_log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "s3.log").write_text("I all is well\nFATAL cannot bind\n\tat java.base/x\nbye\n")
    error = RunFailed(
        "platform_bootstrap",
        {"storage.s3.healthy": "NotHealthy: connection refused", "evidence": "services failed: s3"},
        "http://127.0.0.1:1/dags/platform_bootstrap/runs/x",
    )
    text = _failure_text(error, Settings(tmp_path, 22000))
    assert "s3, healthy: NotHealthy: connection refused" in text
    assert "its log: FATAL cannot bind" in text
    assert "./shudl logs s3" in text
    assert "evidence" not in text


def test_runs_are_told_change_by_change(capsys: pytest.CaptureFixture[str]) -> None:
    with RunBoard("cdc_flights") as board:
        board.show({}, [task("database", "running"), task("jobs.flights", None)])
        board.show({}, [task("database", "success", duration=2.5), task("jobs.flights", "running", map_index=3)])
        board.show({}, [task("database", "success", duration=2.5), task("jobs.flights", "running", map_index=3)])
    lines = [line.split()[2:] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["cdc_flights", "database", "running"],
        ["cdc_flights", "database", "success", "after", "2.5", "s"],
        ["cdc_flights", "jobs.flights[3]", "running"],
    ]


def test_a_failed_run_tells_every_line_of_a_reason() -> None:
    error = RunFailed("cdc_shop", {"database": "shop.yml:4: a\nshop.yml:5: b"}, "http://x")
    assert str(error).splitlines() == ["cdc_shop failed:", "  database: shop.yml:4: a", "    shop.yml:5: b", "All logs: http://x"]


@pytest.mark.parametrize(
    ("file", "dag_id", "expected"),
    [
        ("cdc.py", "cdc_shop", True),
        ("dags/platform_stop.py", "platform_stop", True),
        ("check_pipelines.py", "cdc_shop", False),
        ("prove.py", "proven", False),
    ],
)
def test_which_file_may_keep_a_dag_away(file: str, dag_id: str, expected: bool) -> None:
    assert may_define(file, {dag_id, "other"}) is expected


def test_a_proof_as_a_table() -> None:
    kinds = {kind: {"count": count} for kind, count in (("missing", 0), ("extra", 1), ("different", 2000))}
    found = {"table": "public.flights", "left": "PostgreSQL", "right": "Iceberg", "right_rows": 336776, **kinds}
    console = Console(width=100, file=io.StringIO())
    console.print(proof_table({"comparisons": [found]}))
    row = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert row.split() == ["public.flights", "PostgreSQL", "→", "Iceberg", "336,776", "0", "1", "2,000"]
    assert proof_table({}).row_count == 0


def test_span_of_tasks() -> None:
    assert span([{"start_date": None, "end_date": None}]) is None
    assert (
        span([{"start_date": "2026-01-01T00:00:01Z"}, {"start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:01:00Z"}])
        == 60
    )


def test_rates_of_hops(capsys: pytest.CaptureFixture[str]) -> None:
    with HopBoard("Rows on their way") as board:
        board.show([HopReading("PostgreSQL", 1000, None), HopReading("Kafka", None, None)], now=100.0)
        board.show([HopReading("PostgreSQL", 2000, None), HopReading("Kafka", 1990, 0.5)], now=104.0)
        assert board.rate("PostgreSQL") == 250
        assert board.rate("Kafka") == 0
        board.show([HopReading("PostgreSQL", 2520, None), HopReading("Kafka", 2000, 0.0)], now=130.0)
        assert board.rate("PostgreSQL") == 20, "slow readings are compared with the last one"
    out = capsys.readouterr().out
    assert "PostgreSQL 1,000  →  Kafka ?" in out
    assert "Kafka 2,000 (0.0 s behind)" in out
    assert len(out.splitlines()) == 2, "one line every few seconds, the last figures once"


def test_phases_count_what_the_launcher_did(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(phases_module.STARTED_AT, str(time.time() - 90))
    phases = phases_module.Phases()
    with phases("Load"):
        pass
    with pytest.raises(ValueError), phases("Replay"):
        raise ValueError
    assert phases.took["Install"] == pytest.approx(90, abs=2)
    assert list(phases.took) == ["Install", "Load"]
    assert phases.total == pytest.approx(90, abs=2)
    assert "✗ Replay" in capsys.readouterr().out


def test_late_and_failing_calls_do_not_hold_up_the_others() -> None:
    def fail() -> None:
        raise OSError("refused")

    started = time.monotonic()
    results = Parallel({"good": lambda: 1, "bad": fail, "late": lambda: time.sleep(5)}).results(0.3)
    assert time.monotonic() - started < 2
    assert results["good"] == 1
    assert str(results["bad"]) == "refused"
    assert isinstance(results["late"], TimeoutError)


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_for_people() -> None:
    assert [seconds(value) for value in (0.04, 9.96, 107, 599, 3600, 10000, 200000)] == [
        "0.0 s", "10.0 s", "107 s", "599 s", "60 min", "3 h", "2 d",
    ]  # fmt: skip
    assert [size(value) for value in (0, 999, 1500, 2.5e6, 7.25e9)] == ["0 B", "999 B", "2 kB", "2 MB", "7.2 GB"]


def test_memory_of_a_process_tree() -> None:
    child = "[sys.executable, '-c', 'import time; time.sleep(30)']"
    program = f"import subprocess, sys; held = bytearray(60_000_000); subprocess.run({child})"
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 20
        while len(pids := tree(process.pid, children())) < 2 or rss(pids) < 60e6:
            assert time.monotonic() < deadline, "the child did not start within 20 s"
            time.sleep(0.1)
        assert 50e6 < pss(pids) <= rss(pids) * 1.02
    finally:
        for pid in reversed(pids):
            os.kill(pid, 9)
        process.wait(10)


def test_memory_without_a_platform(tmp_path: Path) -> None:
    with MemoryPeak(Settings(tmp_path, 22000), every_s=0.05) as memory:
        time.sleep(0.2)
    assert (memory.peak, memory.by_service) == (0, {})


# ── sql ──────────────────────────────────────────────────────────────────────────────────────────────────

ANSWER = Answer(
    ["id", "fare", "at", "note", "note"],
    [(1, Decimal("12.50"), dt.datetime(2013, 12, 25, tzinfo=dt.UTC), None, "a,b"), (2, None, None, b"\x00\xff", [Decimal("1")])],
)


def test_json_keeps_values_and_repeated_names(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, "json", 0.1)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"id": 1, "fare": "12.50", "at": "2013-12-25 00:00:00+00:00", "note": None, "note_2": "a,b"}
    assert rows[1] == {"id": 2, "fare": None, "at": None, "note": "00ff", "note_2": ["1"]}


def test_csv_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, "csv", 0.1)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["id", "fare", "at", "note", "note"]
    assert rows[1] == ["1", "12.50", "2013-12-25 00:00:00+00:00", "", "a,b"]


def test_names_and_values() -> None:
    assert unique(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]
    assert plain({"k": (Decimal("0.1"), float("nan"))})["k"][0] == "0.1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("org.apache.calcite.sql.validate.SqlValidatorException: Object 'x' not found"), "Object 'x' not found"),
        (RuntimeError("\n  first line\nsecond"), "first line"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_causes_are_one_line(error: Exception, expected: str) -> None:
    assert cause(error) == expected
