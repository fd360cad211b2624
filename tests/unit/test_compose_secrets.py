"""``make secrets`` makes what is missing, keeps what is there, replaces what it is told to, and never tells a value."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from include.platform.compose import __main__ as command
from include.platform.compose import files, secrets
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError
from include.platform.settings import ROOT
from tests import compose_folder
from tests.compose_folder import ME


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    compose_folder.run_services_as_me(monkeypatch)
    compose_folder.make(tmp_path / "docker")
    return tmp_path / "docker"


@pytest.fixture
def compose(docker: Path) -> Compose:
    return Compose.read(docker / "compose.yaml")


def values(docker: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (docker / "secrets").iterdir()}


def run(docker: Path, *arguments: str) -> int:
    return command.main(["--folder", str(docker), "--user", f"{ME.uid}:{ME.gid}", *arguments])


def test_each_missing_secret_is_made_at_random_and_told_by_name_only(docker: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(docker, "secrets") == 0
    made = values(docker)
    assert set(made) == {"postgres_superuser", "trino"}
    assert all(re.fullmatch("[0-9a-f]{40}", value) for value in made.values()) and len(set(made.values())) == 2
    for path in (docker / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640 and (path.stat().st_uid, path.stat().st_gid) == (ME.uid, ME.gid)
    told = "".join(capsys.readouterr())
    assert "made: postgres_superuser trino" in told and "2 made, 0 kept" in told
    assert not any(value in told for value in made.values())


def test_what_is_there_is_kept_and_made_readable(docker: Path, compose: Compose) -> None:
    (docker / "secrets").mkdir()
    mine = docker / "secrets" / "trino"
    mine.write_text("of my own")
    mine.chmod(0o600)
    done = secrets.make(docker / "secrets", compose, ME)
    assert (done.made, done.kept, done.opened, done.problems) == (["postgres_superuser"], ["trino"], ["trino"], [])
    first = values(docker)
    assert first["trino"] == "of my own" and stat.S_IMODE(mine.stat().st_mode) == 0o640
    again = secrets.make(docker / "secrets", compose, ME)
    assert (again.made, again.opened, again.kept) == ([], [], ["postgres_superuser", "trino"]) and values(docker) == first


def test_only_what_is_named_is_made_anew(
    docker: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(secrets.BEYOND_RESTART, "postgres_superuser", "and what to do besides")
    run(docker, "secrets")
    first = values(docker)
    capsys.readouterr()
    assert run(docker, "secrets", "postgres_superuser", "trino") == 0
    told = "".join(capsys.readouterr())
    assert not set(values(docker).values()) & set(first.values())
    assert "made anew: postgres_superuser trino" in told and "and what to do besides" in told
    assert "compose restart patroni1 trino cli\n" in told
    kept = values(docker)
    run(docker, "secrets", "trino")
    assert [name for name, value in values(docker).items() if value != kept[name]] == ["trino"]


def test_an_unknown_name_changes_nothing(docker: Path, compose: Compose) -> None:
    with pytest.raises(ComposeError, match=r"ROTATE=trinoo: no such secret; the secrets are postgres_superuser, trino"):
        secrets.make(docker / "secrets", compose, ME, ["trino", "trinoo"])
    assert not (docker / "secrets").exists()


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_secret_is_named_and_not_replaced(docker: Path, content: str, capsys: pytest.CaptureFixture) -> None:
    (docker / "secrets").mkdir()
    (docker / "secrets" / "trino").write_text(content)
    assert run(docker, "secrets") == 1
    told = capsys.readouterr().err
    assert "docker/secrets/trino is empty" in told and "remove the file and make secrets" in told
    assert (docker / "secrets" / "trino").read_text() == content


def test_folders_and_links_in_a_secrets_place_are_named(docker: Path, compose: Compose, tmp_path: Path) -> None:
    (docker / "secrets" / "trino").mkdir(parents=True)
    (docker / "secrets" / "postgres_superuser").symlink_to(tmp_path / "elsewhere")
    told = [problem.what for problem in secrets.make(docker / "secrets", compose, ME).problems]
    assert told == [
        "docker/secrets/postgres_superuser is a link, which containers cannot follow",
        "docker/secrets/trino is a folder, not a file",
    ]


def test_missing_and_unreadable_secrets_are_named(docker: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [p.what for p in secrets.problems(docker / "secrets", compose)] == [
        "docker/secrets: missing: postgres_superuser, trino"
    ]
    secrets.make(docker / "secrets", compose, ME)
    assert secrets.problems(docker / "secrets", compose) == []
    (docker / "secrets" / "trino").chmod(0o040)
    (problem,) = secrets.problems(docker / "secrets", compose)
    assert "docker/secrets/trino cannot be read" in problem.what and "make secrets" in problem.way_out
    secrets.make(docker / "secrets", compose, ME)
    assert secrets.problems(docker / "secrets", compose) == []
    monkeypatch.setattr(files, "SERVICE_ID", ME.uid + 77)
    assert "cannot be read by uid" in secrets.problems(docker / "secrets", compose)[0].what


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "readable"),
    [
        (1000, 5, 0o640, True),
        (1000, 5, 0o044, False),
        (5, 1000, 0o640, True),
        (5, 1000, 0o604, False),
        (5, 5, 0o644, True),
        (5, 5, 0o640, False),
    ],
)
def test_who_may_read_a_file(uid: int, gid: int, mode: int, readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Of:
        def stat(self) -> os.stat_result:
            return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))

    assert files.readable_by_services(Of()) is readable


def test_nothing_is_left_beside_the_secrets_when_one_cannot_be_given_away(
    docker: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ComposeError, match=r"docker/secrets/postgres_superuser cannot be given to uid .*: use make"):
        secrets.make(docker / "secrets", compose, ME)
    assert list((docker / "secrets").iterdir()) == []


def test_what_is_said_of_a_rotation_is_of_secrets_that_there_are() -> None:
    compose = Compose.read(ROOT / "docker" / "compose.yaml")
    assert set(secrets.BEYOND_RESTART) <= set(compose.secrets)
    assert all(compose.users(f"./secrets/{name}") for name in ("trino", "kafka_flink", "s3_secret_key"))
