"""The locks are whole, and what is installed is what they say, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from include.platform.engines import layout, state
from include.platform.engines.places import Places
from include.platform.engines.progress import Progress
from include.platform.settings import ROOT, settings

ENGINES = ROOT / "include" / "platform" / "engines"
SOURCES = sorted([ROOT / "requirements.in", ROOT / "docker/services/patroni/requirements.in", *ENGINES.glob("*.in")])
LOCKS = [*(source.with_suffix(".txt") for source in SOURCES), ENGINES / "jars.lock"]
MAVEN_CACHE = Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def pins(path: Path) -> dict[str, str]:
    """Package → version for each line ``package==version``; fails on a line without a version."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    pairs = [line.split(" ;")[0].split("==") for line in lines if line and not line.startswith("--hash")]
    assert all(len(pair) == 2 for pair in pairs), f"{path.name}: every package needs its =="
    return {re.sub(r"\[.*", "", name).lower(): version.rstrip(" \\") for name, version in pairs}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_pin_is_locked_with_hashes(source: Path) -> None:
    locked = source.with_suffix(".txt").read_text()
    assert pins(source).items() <= pins(source.with_suffix(".txt")).items(), "run `make lock`"
    packages = re.findall(r"^[a-z0-9].*==.*$", locked, re.MULTILINE)
    assert packages and all(package.endswith("\\") for package in packages), "a package has no hash"


def test_every_artifact_is_locked_with_its_checksum() -> None:
    pinned = tomllib.loads((ENGINES / "jars.toml").read_text())
    locked = state.jars_lock()
    assert set(pinned) == set(locked) == set(state.ENGINE_ENVS)
    for engine, entry in pinned.items():
        for coordinate in [*entry.get("files", []), *entry.get("resolve", [])]:
            full = coordinate if coordinate.count(":") > 2 else f"{coordinate}:jar"
            assert full in locked[engine], "run `make lock`"
        for coordinate, file in locked[engine].items():
            assert re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) and file["size"] > 0, coordinate


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_host_and_no_path(lock: Path) -> None:
    found = re.search(r"://|--(extra-)?index-url|--find-links|-r /| /", lock.read_text())
    assert found is None, found


def test_all_is_installed_and_a_second_setup_takes_no_time() -> None:
    assert state.is_complete()
    before = os.times()
    subprocess.run([ROOT / "shudl", "setup"], check=True, cwd="/", timeout=60)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["jre21/bin/java", "-version"], 'version "21'),
        (["jre25/bin/java", "-version"], 'version "25'),
        (["postgres/bin/postgres", "--version"], "PostgreSQL"),
        (["postgres/bin/psql", "--version"], "PostgreSQL"),
        (["seaweedfs/bin/weed", "version"], "version"),
        (["flink/bin/flink", "--version"], "Version:"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_engine_starts(command: list[str], expected: str) -> None:
    env = {**os.environ, "JAVA_HOME": str(settings.engines / "jre21")}
    program, *arguments = command
    done = subprocess.run([settings.engines / program, *arguments], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0 and expected in done.stdout + done.stderr


def test_stamp_follows_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "x.txt"
    lock.write_text("a==1")
    monkeypatch.setattr(state, "places", Places(tmp_path))
    monkeypatch.setattr(state, "ENV_LOCKS", {"x": lock})
    assert state.stale_envs() == ["x"]
    (tmp_path / "envs" / "x").mkdir()
    state.stamp(tmp_path / "envs" / "x", state.env_digest("x"))
    assert state.stale_envs() == []
    lock.write_text("a==2")
    assert state.stale_envs() == ["x"]


def small_trino(folder: Path) -> list[Path]:
    """A server archive whose plugins share a jar by hard link, and one plugin's archive."""
    top = folder / "trino-server-core-1"
    for plugin in ("a", "b"):
        (top / "plugin" / plugin).mkdir(parents=True)
    (top / "lib").mkdir()
    (top / "lib" / "server.jar").write_text("server")
    (top / "plugin" / "a" / "shared.jar").write_text("shared")
    os.link(top / "plugin" / "a" / "shared.jar", top / "plugin" / "b" / "shared.jar")
    server, plugin = folder / "trino-server-core-1.tar.gz", folder / "trino-iceberg-1.zip"
    with tarfile.open(server, "w:gz") as tar:
        tar.add(top, top.name)
    with zipfile.ZipFile(plugin, "w") as file:
        file.writestr("trino-iceberg-1/iceberg.jar", "iceberg")
    return [plugin, server]


def test_engine_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Places(tmp_path / "home")
    monkeypatch.setattr(layout, "places", home)
    monkeypatch.setattr(state, "places", home)
    files = small_trino(tmp_path)
    row = Progress().row("trino")
    layout.build("trino", files, row)
    folder = home.engines / "trino"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {".stamp", "lib/server.jar", "plugin/iceberg/iceberg.jar"}

    (folder / "lib" / "server.jar").write_text("the old one")
    files[1].write_bytes(files[1].read_bytes()[:-60])
    with pytest.raises(Exception, match=r"end-of-stream|ended before|CRC|unexpected end"):
        layout.build("trino", files, row)
    assert (folder / "lib" / "server.jar").read_text() == "the old one"


class MavenRepository(SimpleHTTPRequestHandler):
    """Serves the machine's own Maven cache, slowly, and spoils what ``spoil`` names, as often as it says."""

    spoil: ClassVar[dict[str, int]] = {}
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        name = path.name
        self.requests.append(name)
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if self.spoil.get(name, 0) > 0:
            self.spoil[name] -= 1
            data = data[: len(data) // 2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for start in range(0, len(data), 1 << 18):
            self.wfile.write(data[start : start + (1 << 18)])
            time.sleep(0.005)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def maven(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process whose Maven repository is :class:`MavenRepository` and whose caches are empty."""
    MavenRepository.spoil, MavenRepository.requests = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(MavenRepository, directory=str(MAVEN_CACHE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = tmp_path / "jgo.conf"
    config.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
    home = tmp_path / "home"
    (home / "envs").mkdir(parents=True)
    (home / "envs" / "tools").symlink_to(settings.envs / "tools")
    (home / "install.lock").touch()
    yield {
        **{name: value for name, value in os.environ.items() if name != "SHUDL_INSTALL"},
        "JGO_CONFIG_FILE": str(config),
        "M2_REPO": str(tmp_path / "m2"),
        "PYTHONPATH": str(ROOT),
        "SHUDL_HOME": str(home),
        "SHUDL_INSTALL": str(home),
        "NO_PROXY": "127.0.0.1",
    }
    server.shutdown()
    server.server_close()
    shutil.rmtree(home)
    shutil.rmtree(tmp_path / "m2", ignore_errors=True)


INSTALL = """
import sys
from include.platform.engines import __main__ as engines, state
engines.use_tools = lambda: None
state.ENV_LOCKS, state.links = {}, lambda: {}
state.ENGINE_ENVS = {engine: () for engine in sys.argv[1:]}
sys.exit(engines.main([]))
"""
"""Installs the engines of its arguments, and nothing else."""


def install(env: dict[str, str], *engines: str) -> subprocess.Popen[str]:
    command = [settings.python("tools"), "-P", "-c", INSTALL, *engines]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Returns once ``process`` has said ``text``; fails when it ends before."""
    assert process.stderr
    assert any(text in line for line in process.stderr), f"{text!r} was never said"


def is_as_locked(folder: Path, engine: str) -> bool:
    expected = {file["sha256"] for file in state.jars_lock()[engine].values()}
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.jar")} == expected


def file_name(coordinate: str) -> str:
    _, name, version, packaging, *classifier = coordinate.split(":")
    return f"{'-'.join([name, version, *classifier])}.{packaging}"


def test_truncated_download_and_spoilt_cache_are_fetched_again(maven: dict[str, str]) -> None:
    kafka = Path(maven["SHUDL_HOME"]) / "engines" / "kafka"
    name, *_, other = map(file_name, state.jars_lock()["kafka"])
    MavenRepository.spoil = {name: 1}
    first = install(maven, "kafka")
    assert first.communicate(timeout=120) and first.returncode == 0
    assert is_as_locked(kafka, "kafka")
    assert MavenRepository.requests.count(name) == 2

    (spoilt,) = Path(maven["M2_REPO"]).rglob(other)
    shutil.rmtree(kafka)
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    MavenRepository.requests.clear()
    second = install(maven, "kafka")
    assert second.communicate(timeout=120) and second.returncode == 0
    assert is_as_locked(kafka, "kafka")
    assert [name for name in MavenRepository.requests if name.endswith(".jar")] == [other]


def test_file_that_is_not_the_locked_one_is_refused(maven: dict[str, str]) -> None:
    ((coordinate, locked),) = state.jars_lock()["connect"].items()
    MavenRepository.spoil = {file_name(coordinate): 99}
    process = install(maven, "connect")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert coordinate in errors and locked["sha256"] in errors and "Traceback" not in errors
    assert not list(Path(maven["M2_REPO"]).rglob(file_name(coordinate)))
    assert not (Path(maven["SHUDL_HOME"]) / "engines" / "connect").exists()


def test_no_network_is_one_paragraph(maven: dict[str, str]) -> None:
    Path(maven["JGO_CONFIG_FILE"]).write_text("[repositories]\ncentral = http://127.0.0.1:9\n")
    process = install(maven, "connect")
    _, errors = process.communicate(timeout=120)
    (message,) = [line for line in errors.splitlines() if line.startswith("shudl:")]
    assert process.returncode == 1 and "Traceback" not in errors
    assert "debezium-connector-postgres" in message and "network" in message


def test_killed_anywhere_it_goes_on(maven: dict[str, str]) -> None:
    engines = Path(maven["SHUDL_HOME"]) / "engines"
    for delay_s in (0.5, 0.8, 1.2, 1.8):
        process = install(maven, "kafka", "registry")
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        if (engines / "kafka").exists():
            assert is_as_locked(engines / "kafka", "kafka")
    process = install(maven, "kafka", "registry")
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert is_as_locked(engines / "kafka", "kafka") and (engines / "registry" / "quarkus-run.jar").exists()
    assert not (engines.parent / "tmp").exists()


def test_interrupt_ends_at_once_and_says_how_to_go_on(maven: dict[str, str]) -> None:
    process = install(maven, "registry")
    read_until(process, "registry: downloading")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on where it stopped" in errors and "Traceback" not in errors


def test_second_one_waits_and_says_so(maven: dict[str, str]) -> None:
    first = install(maven, "registry")
    read_until(first, "registry: downloading")
    second = install(maven, "registry")
    read_until(second, f"process {first.pid}, or what it started, installs")
    _, errors = second.communicate(timeout=300)
    first.communicate(timeout=10)
    assert first.returncode == second.returncode == 0
    assert "downloading" not in errors


def test_launcher_names_the_python_that_it_needs(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "readlink"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    env = {"PATH": str(tools), "SHUDL_HOME": str(tmp_path / "home")}
    done = subprocess.run([ROOT / "shudl", "status"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "Python 3.11" in done.stderr
    assert not (tmp_path / "home").exists()


def test_launcher_and_installer_want_the_same_pythons() -> None:
    limits = re.search(r"\((\d+), (\d+)\) <= sys.version_info\[:2\] <= \((\d+), (\d+)\)", (ROOT / "shudl").read_text())
    assert limits and tuple(map(int, limits.groups())) == (*state.PYTHONS[0], *state.PYTHONS[1])


def test_folder_of_others_is_left_alone(maven: dict[str, str]) -> None:
    lock = Path(maven["SHUDL_HOME"]) / "install.lock"
    lock.unlink()
    process = install(maven, "kafka")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "SHUDL_HOME" in errors and "Traceback" not in errors
    cleaned = subprocess.run(["make", "-C", ROOT, "clean"], env=maven, capture_output=True, text=True, timeout=60)
    assert cleaned.returncode != 0 and "by hand" in cleaned.stderr and lock.parent.is_dir()


def test_unsupported_platform_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.platform, "machine", lambda: "riscv64")
    with pytest.raises(state.EngineError, match="Linux on riscv64"):
        state.check_platform()


def test_python_of_the_tests_is_the_locked_environment() -> None:
    assert Path(sys.prefix).resolve() == (settings.envs / "airflow").resolve()
