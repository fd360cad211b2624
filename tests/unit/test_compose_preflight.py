"""What keeps the Compose platform from starting is said before it starts: all at once, by name and value, with the way out."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.platform.catalog import control_plane
from include.platform.compose import __main__ as command
from include.platform.compose import certificates, dotenv, pki, preflight, secrets
from include.platform.compose.facts import Facts
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError
from include.platform.settings import ROOT
from tests import compose_folder
from tests.compose_folder import ME

SCRIPT = ROOT / "docker" / "platform.sh"
HERE = "/home/me/shudl/docker"
MEMORY = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:   14000000 kB\n"
CONFIG = {
    "services": {
        "trino": {"image": "shudl/trino:0.1.0", "ports": [{"host_ip": "127.0.0.1", "published": "8080", "target": 8080}]},
        "haproxy": {"image": "shudl/haproxy:0.1.0", "ports": [{"host_ip": "127.0.0.1", "published": "15000", "target": 15000}]},
        "clickhouse": {"image": "clickhouse/clickhouse-server:25.8"},
    }
}
FACTS = [
    f"folder\t{HERE}",
    "docker\t26.1.5+dfsg1",
    "compose\t2.26.1-4",
    "socket\t/var/run/docker.sock\t998",
    "image\tshudl/trino:0.1.0",
    "image\tshudl/haproxy:0.1.0",
]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    docker = tmp_path_factory.mktemp("made") / "docker"
    with pytest.MonkeyPatch.context() as monkeypatch:
        compose_folder.run_services_as_me(monkeypatch)
        compose = compose_folder.make(docker)
        secrets.make(docker / "secrets", compose, ME)
        certificates.make(docker / "certificates", compose, ME)
    return docker


@pytest.fixture
def docker(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    compose_folder.run_services_as_me(monkeypatch)
    return Path(shutil.copytree(made_once, tmp_path / "docker"))


Check = Callable[..., list[str]]


@pytest.fixture
def check(docker: Path, tmp_path: Path) -> Check:
    """What is found, as text. Facts in ``more`` are added to, or replace, those of a machine on which all is well."""

    def run(*more: str, config: dict | None = None, meminfo: str = MEMORY, now: datetime | None = None) -> list[str]:
        (tmp_path / "meminfo").write_text(meminfo)
        replaced = {"docker", "compose", "socket"} & {line.partition("\t")[0] for line in more}
        lines = [line for line in FACTS if line.partition("\t")[0] not in replaced]
        lines += [f"config\t{line}" for line in json.dumps(CONFIG if config is None else config, indent=2).splitlines()]
        found, _ = preflight.check(docker, Facts([*lines, *more]), now, tmp_path / "meminfo")
        return [str(problem) for problem in found]

    return run


def dotenv_file(docker: Path, **changes: str | None) -> None:
    """``.env`` as the example, with ``changes``; None leaves a line out."""
    values = {**dotenv.read(docker / ".env.example"), **changes}
    (docker / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items() if value is not None))


def test_nothing_is_said_when_all_is_well(docker: Path, check: Check) -> None:
    assert check() == []
    dotenv_file(docker)
    assert check() == []


def test_all_problems_are_told_at_once(docker: Path, check: Check) -> None:
    dotenv_file(docker, TRINO_PUBLISHED_PORT="80 80", TRINO_HEAP=None)
    (docker / "secrets" / "trino").unlink()
    (docker / "certificates" / "trino.key").write_bytes((docker / "certificates" / "etcd1.key").read_bytes())
    found = check(
        "docker\t20.10.5", meminfo=MEMORY.replace("16000000", "4000000"), config={"services": {"x": {"image": "shudl/x:1"}}}
    )
    told = (
        "Docker Engine 20.10.5",
        "TRINO_HEAP is missing",
        "TRINO_PUBLISHED_PORT=80 80",
        "missing: trino",
        "trino.key is not the key",
    )
    for words in (*told, "needs 11 GB", "shudl/x:1"):
        assert sum(words in problem for problem in found) == 1, (words, found)
    assert len(found) == 7 and all("\n    → " in problem for problem in found)


# ── Docker ──


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        ("docker\t24.0.7", "Docker Engine 24.0.7 is older than 25.0"),
        ("docker\t", "Docker Engine (unknown version) is older than 25.0"),
        ("compose\tv2.23.3", "Docker Compose v2.23.3 is older than 2.24"),
        ("compose\t1.29.2", "Docker Compose 1.29.2 is older than 2.24"),
    ],
)
def test_an_old_docker(check: Check, fact: str, told: str) -> None:
    (problem,) = check(fact)
    assert problem.startswith(told) and "https://docs.docker.com/" in problem


@pytest.mark.parametrize("fact", ["docker\t25.0.0", "docker\t100.1", "compose\tv2.24.0", "compose\t5.0.1-desktop.1"])
def test_new_ones(check: Check, fact: str) -> None:
    assert check(fact) == []


def test_dockers_socket(docker: Path, check: Check) -> None:
    (problem,) = check("socket\t/run/nowhere.sock\t")
    assert problem.startswith("DOCKER_SOCKET=/run/nowhere.sock: no socket there")
    dotenv_file(docker, DOCKER_GID="999")
    (problem,) = check()
    assert "DOCKER_GID=999, but the group of /var/run/docker.sock is 998" in problem and "DOCKER_GID=998" in problem
    dotenv_file(docker, DOCKER_GID="998")
    assert check() == []


def test_images_that_are_not_built(check: Check) -> None:
    config = {"services": {name: {"image": f"shudl/{name}:0.1.0"} for name in ("trino", "kafka", "connect")}}
    (problem,) = check(config=config)
    assert problem == "images that are not built: shudl/connect:0.1.0, shudl/kafka:0.1.0\n    → make images"


def test_a_configuration_that_compose_refuses(docker: Path, check: Check) -> None:
    refused = ("refused\tservices.trino.ports", "refused\tinvalid port")
    (problem,) = check(*refused, config={})
    assert problem.startswith("Compose refuses its configuration: services.trino.ports invalid port")
    dotenv_file(docker, TRINO_PUBLISHED_PORT="no")
    (problem,) = check(*refused, config={})
    assert problem.startswith("TRINO_PUBLISHED_PORT=no"), "its cause is told, not its effect"


# ── settings ──


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TRINO_PUBLISHED_PORT", "eighty", "must be a port"),
        ("TRINO_PUBLISHED_PORT", "0", "must be a port"),
        ("TRINO_PUBLISHED_PORT", "65536", "must be a port"),
        ("TRINO_PUBLISHED_PORT", "", "must be a port"),
        ("SHUDL_BIND", "localhost", "must be an IP address"),
        ("SHUDL_PUBLIC_NAMES", "lake.example.org bad_name", "must be host names or IP addresses"),
        ("SHUDL_PUBLIC_NAMES", "10.1.2.300", "must be host names or IP addresses"),
        ("TRINO_HEAP", "1280", "must be an amount of memory"),
        ("TRINO_MEMORY", "2 GB", "must be an amount of memory"),
        ("TRINO_QUERY_MEMORY", "600m", "must be an amount such as 600MB"),
        ("CLICKHOUSE_IMAGE", "clickhouse/clickhouse-server", "must be an image with its tag"),
        ("CLICKHOUSE_IMAGE", "", "must be an image with its tag"),
        ("DOCKER_GID", "docker", "must be the number"),
        ("DOCKER_SOCKET", "docker.sock", "must be the absolute path"),
        ("VERSION", "a b", "must be a tag"),
        ("COMPOSE_PROFILES", "access monitoring", "must be names of profiles, separated by commas"),
    ],
)
def test_a_bad_value(docker: Path, name: str, value: str, told: str) -> None:
    dotenv_file(docker, **{name: value})
    (problem,) = dotenv.problems(docker, {})
    default = dotenv.read(docker / ".env.example")[name]
    assert problem.what.startswith(f"{name}={value} in docker/.env: {told}") and f"{name}={default}" in problem.way_out


def test_the_shell_goes_before_the_file(docker: Path, check: Check) -> None:
    dotenv_file(docker, TRINO_PUBLISHED_PORT="eighty")
    assert check("setting\tTRINO_PUBLISHED_PORT=8081") == []
    (problem,) = check("setting\tTRINO_PUBLISHED_PORT=8081", "setting\tTRINO_HEAP=none")
    assert problem.startswith("TRINO_HEAP=none in the shell's environment: must be")


def test_missing_unknown_repeated_and_broken_lines(docker: Path) -> None:
    dotenv_file(docker, TRINO_HEAP=None)
    with (docker / ".env").open("a") as file:
        file.write("TRINO_PUBLISHD_PORT=1\nwhat is this\nSHUDL_BIND=127.0.0.1\n")
    lines = len((docker / ".env").read_text().splitlines())
    told = [str(problem) for problem in dotenv.problems(docker, {})]
    assert told[0].startswith(f"docker/.env, line {lines - 2}: TRINO_PUBLISHD_PORT is no setting of ShuDL")
    assert "did you mean TRINO_PUBLISHED_PORT?" in told[0]
    assert told[1].startswith(f"docker/.env, line {lines - 1}: 'what is this' is no NAME=value")
    assert told[2].startswith(f"docker/.env, line {lines}: SHUDL_BIND is set in line 3 already")
    assert told[3] == ("docker/.env: TRINO_HEAP is missing\n    → add the line TRINO_HEAP=1280m, as in docker/.env.example")
    assert len(told) == 4


def test_a_heap_that_does_not_fit(docker: Path) -> None:
    dotenv_file(docker, TRINO_HEAP="3g")
    (problem,) = dotenv.problems(docker, {})
    assert problem.what == "TRINO_HEAP=3g does not fit into TRINO_MEMORY=2560m" and "raise TRINO_MEMORY" in problem.way_out
    dotenv_file(docker, TRINO_HEAP="3g", TRINO_MEMORY="5g")
    assert dotenv.problems(docker, {}) == []


def test_two_services_at_one_port(docker: Path) -> None:
    dotenv_file(docker, TRINO_PUBLISHED_PORT="15000")
    (problem,) = dotenv.problems(docker, {})
    assert problem.what == "POSTGRES_WRITE_PUBLISHED_PORT=15000 is TRINO_PUBLISHED_PORT as well"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  export A = b  # why", "b"),
        ("A='b # c' # why", "b # c"),
        ('A="b c"', "b c"),
        ("A=b#c", "b#c"),
        ("A=", ""),
        ("A= # why", ""),
    ],
)
def test_lines_are_read_as_compose_reads_them(line: str, value: str) -> None:
    assert [found[1:] for found in dotenv.parse(f"# A=no\n\n{line}\n")] == [("A", value)]


def test_a_profile_that_there_is_not(docker: Path, check: Check) -> None:
    dotenv_file(docker, COMPOSE_PROFILES="acces")
    (problem,) = check()
    assert problem.startswith("COMPOSE_PROFILES=acces: no such profile") and "access, cli, core, full" in problem


# ── secrets and certificates ──


def test_missing_and_empty_secrets(docker: Path, check: Check) -> None:
    (docker / "secrets" / "postgres_superuser").unlink()
    (docker / "secrets" / "trino").write_text("\n")
    assert check() == [
        "docker/secrets: missing: postgres_superuser\n    → make secrets",
        "docker/secrets/trino is empty\n    → write the value into it, or remove the file and make secrets",
    ]


def test_certificates_that_expired(check: Check) -> None:
    found = check(now=datetime.now(UTC) + timedelta(days=pki.SERVICE_DAYS + 1))
    assert len(found) == 3 and all(re.match(r"docker/certificates/\w+\.crt expired on \d{4}-", problem) for problem in found)


def test_certificates_that_lack_a_public_name(docker: Path, check: Check) -> None:
    dotenv_file(docker, SHUDL_PUBLIC_NAMES="lake.example.org")
    assert [problem.splitlines()[0] for problem in check()] == [
        f"docker/certificates/{name}.crt is not for lake.example.org" for name in ("patroni1", "trino")
    ]


def test_nothing_made_yet_is_told_in_few_words(docker: Path, check: Check) -> None:
    shutil.rmtree(docker / "secrets")
    shutil.rmtree(docker / "certificates")
    assert check() == [
        "docker/secrets: missing: postgres_superuser, trino\n    → make secrets",
        "docker/certificates/ca.crt is missing\n    → make certificates",
    ]


# ── memory ──


def test_too_small_a_machine(docker: Path, check: Check) -> None:
    small = MEMORY.replace("16000000", "8000000")
    assert check(meminfo=small) == [
        "the profile core needs 11 GB of memory, Docker's machine has 8.2 GB\n    → use a larger machine"
    ]
    dotenv_file(docker, COMPOSE_PROFILES="full")
    (problem,) = check(meminfo=small)
    assert "the profile full needs 11.9 GB of memory" in problem and "COMPOSE_PROFILES" in problem


def test_memory_that_others_use(docker: Path, check: Check) -> None:
    busy = MEMORY.replace("14000000", "6000000")
    (problem,) = check(meminfo=busy)
    assert problem.startswith("the profile core needs 11 GB of memory, 6.1 of 16.4 GB are free")
    assert check(f"container\tshudl\t{HERE}\tshudl-trino-1\t", meminfo=busy) == [], "what the platform uses itself is its own"


def test_what_is_external_takes_neither_memory_nor_ports_nor_an_image(docker: Path, check: Check) -> None:
    haproxy = {"image": "shudl/haproxy:0.1.0", "mem_limit": "1000"}
    trino = {**CONFIG["services"]["trino"], "image": "shudl/none:1", "mem_limit": "3000"}
    external, ours = ({"services": {"haproxy": haproxy, "trino": {**trino, **scale}}} for scale in ({"scale": 0}, {}))
    little = MEMORY.replace("16000000", "3000000").replace("14000000", "3000000")
    taken = "container\tother\t/other\tother-web-1\t127.0.0.1:8080->80/tcp"
    assert check(taken, config=external, meminfo=little) == []
    assert [line.split("\n")[0] for line in check(taken, config=ours, meminfo=little)] == [
        "the profile core needs 11 GB of memory, Docker's machine has 3.1 GB",
        "port 8080 (trino) is taken by the container other-web-1",
        "images that are not built: shudl/none:1",
    ]


def test_memory_of_profiles_adds_up(docker: Path) -> None:
    compose = Compose.read(docker / "compose.yaml")
    assert [round(compose.memory_gb(chosen), 1) for chosen in (set(), {"access"}, {"access", "cli"}, {"full"})] == [
        11,
        11.6,
        11.6,
        11.9,
    ]
    (docker / "compose.yaml").write_text(compose_folder.COMPOSE.replace("x-shudl-memory", "x-other"))
    with pytest.raises(ComposeError, match=r"docker/compose\.yaml: no x-shudl-memory"):
        Compose.read(docker / "compose.yaml").memory_gb(set())


# ── ports ──


def proc_net(family: str) -> list[str]:
    return [f"listener\t{line}" for line in Path("/proc/net", family).read_text().splitlines()]


@pytest.mark.parametrize(
    ("family", "held", "wanted", "taken"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", "0.0.0.0", True),
        (socket.AF_INET6, "::", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.2", "127.0.0.1", False),
    ],
)
def test_a_port_that_a_program_holds(docker: Path, check: Check, family: int, held: str, wanted: str, taken: bool) -> None:
    with socket.socket(family) as holder:
        try:
            holder.bind((held, 0))
        except OSError as error:
            pytest.skip(f"this machine has no address {held}: {error}")
        port = holder.getsockname()[1]
        config = {"services": {"trino": {"ports": [{"host_ip": wanted, "published": str(port)}]}}}
        dotenv_file(docker, TRINO_PUBLISHED_PORT=str(port))
        files = [*proc_net("tcp"), *(proc_net("tcp6") if Path("/proc/net/tcp6").exists() else [])]
        assert check(*files, config=config) == [], "bound, but nobody listens yet"
        holder.listen()
        files = [*proc_net("tcp"), *(proc_net("tcp6") if Path("/proc/net/tcp6").exists() else [])]
        found = check(*files, config=config)
        told = f'holder\tLISTEN 0 128 127.0.0.1:{port} 0.0.0.0:* users:(("nginx",pid=12,fd=3))'
        named = check(*files, told, config=config)
    if not taken:
        assert found == []
        return
    assert found == [
        f"port {port} (trino) is taken by another program, whose name only root can see\n"
        "    → end that program, or set TRINO_PUBLISHED_PORT in docker/.env to a free port"
    ]
    assert f"port {port} (trino) is taken by nginx (pid 12)" in named[0]


def test_a_port_that_a_container_holds(check: Check) -> None:
    ports = "127.0.0.1:8080->8080/tcp, 0.0.0.0:14999-15001->14999-15001/tcp, 9000/tcp"
    found = check(f"container\tother\t/srv/other\tother-web-1\t{ports}")
    assert [problem.splitlines()[0] for problem in found] == [
        "port 8080 (trino) is taken by the container other-web-1",
        "port 15000 (haproxy) is taken by the container other-web-1",
    ]
    assert check(f"container\tshudl\t{HERE}\tshudl-trino-1\t{ports}") == [], "this platform's own"


def test_another_checkout_of_the_same_name(check: Check) -> None:
    (problem,) = check("container\tshudl\t/srv/other/docker\tshudl-trino-1\t")
    assert problem == "the platform of another checkout runs: /srv/other/docker\n    → stop it there: make -C /srv/other down"


# ── the command, and what belongs to it ──


def test_the_command_says_one_line_or_all_problems(
    docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(preflight, "memory", lambda *_: [])

    def run(*more: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in (*FACTS, *more))))
        return command.main(["--folder", str(docker), "check"])

    assert run() == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run("setting\tTRINO_HEAP=much", "setting\tSHUDL_BIND=here") == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("FAIL  ") == told.err.count("\n    → ") == 2
    (docker / "compose.yaml").unlink()
    assert run() == 1 and "docker/compose.yaml is not here" in capsys.readouterr().err


def test_every_setting_has_a_rule_a_good_default_and_a_comment() -> None:
    folder = ROOT / "docker"
    lines = (folder / ".env.example").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert len(names) == len(set(names)) > 40
    assert [name for name in names if dotenv.rule(name) is None] == []
    defaults = dotenv.read(folder / ".env.example")
    assert [p.what for p in (*dotenv._heaps(defaults), *dotenv._same_ports(defaults))] == []
    for name, value in defaults.items():
        rule = dotenv.rule(name)
        assert rule.test(value) or (rule.empty and not value), f"{name}={value}"
    for before, line in zip(["", *lines], lines, strict=False):
        commented = before and "──" not in before
        assert line.startswith("#") or not line or commented, f"{line} has no comment above it"


def test_the_script_starts_the_control_plane_of_the_catalogue() -> None:
    started = dict(re.findall(r"^(control_plane\w*)=\((.*)\)$", SCRIPT.read_text(), re.M))
    alone, all_of_ha = (
        {part for service in control_plane(docker=True, ha=ha) for part in service.containers or (service.name,)}
        for ha in (False, True)
    )
    assert set(started["control_plane"].split()) == alone | {"docker-filter", "fencer"}
    assert set(started["control_plane_ha"].split()) == all_of_ha - alone
    assert all_of_ha <= set(Compose.read(ROOT / "docker" / "compose.yaml").services)


def script(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": path, "HOME": "/nonexistent"}
    return subprocess.run(["/bin/bash", str(SCRIPT), *arguments], env=env, capture_output=True, text=True, timeout=60)


def tools(folder: Path, docker: str | None = None) -> str:
    """A PATH with what the script needs of the host, and ``docker`` as the program of that name."""
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "grep", "id", "mktemp", "readlink", "rm", "sed", "stat", "tail"):
        os.symlink(shutil.which(name), folder / name)
    if docker is not None:
        (folder / "docker").write_text(f"#!/bin/bash\n{docker}\n")
        (folder / "docker").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("docker", "told"),
    [
        (None, "FAIL  Docker is not installed\n    → install it: https://"),
        ("echo 'permission denied while trying to connect' >&2; exit 1", "usermod -aG docker"),
        (
            "echo 'Cannot connect to the Docker daemon' >&2; exit 1",
            "FAIL  Docker does not answer: Cannot connect to the Docker daemon",
        ),
        ("[ $1 = version ] && echo 26.1", "FAIL  docker compose is not installed"),
        ("[ \"$1 $2\" != 'image inspect' ]", "FAIL  image shudl/airflow:"),
    ],
    ids=["none", "refuses", "down", "no compose", "no image"],
)
def test_a_docker_that_cannot_even_check(tmp_path: Path, docker: str | None, told: str) -> None:
    for goal in ("check", "up", "secrets", "certificates"):
        done = script(goal, path=tools(tmp_path / goal, docker))
        assert done.returncode == 1 and told in done.stderr and "\n    → " in done.stderr, done.stdout + done.stderr


def test_wrong_usage_shows_the_right_one(tmp_path: Path) -> None:
    done = script("start", path=tools(tmp_path / "bin"))
    assert done.returncode == 2 and "platform.sh certificates [NAME...]" in done.stderr
