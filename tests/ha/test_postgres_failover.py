"""Who becomes PostgreSQL's primary, and when: switchover, kill, crash, pause, cut, quick restart; no acknowledged row is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from include.drills.writer import Writer
from include.platform.evidence import write_evidence
from include.platform.settings import settings
from tests.compose_platform import VERSION
from tests.ha.postgres_cluster import IMAGES, Cluster

STANDBY_LIMIT_S = 8
SWITCHOVER_S, KILL_S = 3, 15
"""Aims for the longest time without an acknowledged write. On a machine with more to do than it can: twice that."""
FIGURES: dict[str, float] = {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        engine = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no Docker engine: docker is not installed")
    if engine.returncode:
        pytest.skip(f"no Docker engine: {engine.stderr.strip()}")
    for image in IMAGES:
        name = f"shudl/{image}:{VERSION}"
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=60).returncode:
            pytest.skip(f"no image {name}: make images IMAGES='{' '.join(IMAGES)}'")
    if os.getuid():
        pytest.skip("services read their secrets as uid 1000: only root can give them to it")
    limit = {"POSTGRES_STANDBY_LIMIT_S": str(STANDBY_LIMIT_S)}
    with Cluster(f"shudl-test-ha-{os.getpid()}", "127.0.6.1", settings.home / "ha", **limit).running() as cluster:
        yield cluster
    write_evidence("postgres_failover", f"{int(time.time())}", {"outage_s": FIGURES})


@contextmanager
def through(cluster: Cluster, fault: str, aim_s: float = 0) -> Iterator[Writer]:
    """A writer writes before, during and after the block; nothing that it was told is written is missing afterwards."""
    cluster.is_whole(within_s=90)
    with cluster.writes() as writer:
        cluster.goes_on(writer, within_s=20)
        since = time.monotonic()
        yield writer
        cluster.goes_on(writer, within_s=60)
        FIGURES[fault] = round(writer.outage_s(since), 2)
    assert writer.lost() == []
    writer.remove()
    if aim_s:
        slack = 2 if os.getloadavg()[0] > 2 * (os.cpu_count() or 1) else 1
        assert FIGURES[fault] < aim_s * slack, f"{fault}: {FIGURES[fault]} s without an acknowledged write"


@pytest.fixture
def fencer_stands_by(cluster: Cluster) -> Iterator[None]:
    """The fencer watches, and does nothing within the test."""
    cluster.wait("the fencer watches", 30, lambda: cluster.fencer("watches_primary") == 1)
    before = cluster.fencer("handed_over_total")
    yield
    assert cluster.fencer("handed_over_total") == before, "the fencer acted on a primary that had not ended"


def test_a_switchover(cluster: Cluster, fencer_stands_by: None) -> None:
    old = cluster.primary()
    with through(cluster, "switchover", SWITCHOVER_S):
        cluster.inside(old, "patronictl", "switchover", "--force")
        cluster.has_another_primary(than=old, within_s=20)
    cluster.is_whole(within_s=60)


def test_a_killed_primary_is_replaced_at_once_and_comes_back_as_a_standby(cluster: Cluster) -> None:
    old, before = cluster.primary(), cluster.fencer("handed_over_total")
    with through(cluster, "kill", KILL_S):
        cluster.docker("kill", cluster.container(old))
        new = cluster.has_another_primary(than=old, within_s=20)
    assert cluster.fencer("handed_over_total") == before + 1, "Patroni was faster than its lease, without the fencer"
    assert cluster.state(old)["Status"] == "exited", "docker kill is for good until somebody starts it"
    cluster.docker("start", cluster.container(old))
    cluster.is_whole(within_s=90)
    assert cluster.primary() == new


def test_a_primary_whose_first_process_dies_is_started_again_by_docker(cluster: Cluster) -> None:
    old = cluster.primary()
    pid, started = cluster.state(old)["Pid"], cluster.state(old)["StartedAt"]
    with through(cluster, "first process killed"):
        os.kill(pid, signal.SIGKILL)
        cluster.wait(f"{old} is started again", 30, lambda: cluster.state(old)["StartedAt"] > started)
        cluster.wait("a primary", 60, cluster.primary, cluster.members)
    cluster.is_whole(within_s=90)


def test_a_paused_primary_is_left_alone(cluster: Cluster, fencer_stands_by: None) -> None:
    primary, key = cluster.primary(), cluster.leader_key()
    with through(cluster, "pause of 6 s"):
        cluster.docker("pause", cluster.container(primary))
        time.sleep(6)
        assert cluster.leader_key() == key
        cluster.docker("unpause", cluster.container(primary))
    assert cluster.leader_key() == key


def test_a_primary_that_is_cut_off_is_left_to_patroni(cluster: Cluster, fencer_stands_by: None) -> None:
    """It gives up by itself; the standby takes over when its lease has run out, and not before."""
    primary = cluster.primary()
    networks = [f"{cluster.project}_{name}" for name in ("control", "data", "management")]
    with through(cluster, "network cut"):
        for network in networks:
            cluster.docker("network", "disconnect", network, cluster.container(primary))
        cut = time.monotonic()
        cluster.has_another_primary(than=primary, within_s=60)
        FIGURES["network cut: another primary after"] = round(time.monotonic() - cut, 2)
        for network in networks:
            cluster.docker("network", "connect", "--alias", primary, network, cluster.container(primary))
    cluster.is_whole(within_s=120)


def test_a_primary_that_is_restarted_quickly_is_left_alone(cluster: Cluster, fencer_stands_by: None) -> None:
    with through(cluster, "quick restart"):
        cluster.docker("restart", "-t", "0", cluster.container(cluster.primary()))
        cluster.wait("a primary", 60, cluster.primary, cluster.members)


def test_a_leader_key_that_is_not_the_one_that_was_seen_is_not_deleted(cluster: Cluster) -> None:
    """The transaction compares revision and lease: each of them alone keeps another reign's key."""
    cluster.is_whole(within_s=90)
    key = cluster.leader_key()
    for other in ({"lease": str(int(key["lease"]) + 1)}, {"revision": str(int(key["revision"]) - 1)}):
        end = "import fencer, os, ssl; c = ssl.create_default_context(cafile=os.environ['TLS_CA_FILE']); "
        end += "c.load_cert_chain(os.environ['TLS_CERT_FILE'], os.environ['TLS_KEY_FILE']); "
        end += f"print(fencer.Etcd(['etcd1'], c).end(fencer.Reign(**{json.dumps(key | other)})))"
        assert cluster.in_fencer(end).strip() == "False"
    assert cluster.leader_key() == key


def test_changes_wait_for_a_standby_that_is_away_and_go_on_after_the_limit(cluster: Cluster, fencer_stands_by: None) -> None:
    cluster.is_whole(within_s=90)
    primary = cluster.primary()
    standby = cluster.standby_of(primary)
    slot, copied = "changes", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'changes' AND synced AND NOT temporary"
    cluster.sql(primary, f"SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding', false, false, true)")
    cluster.wait("the standby has a copy of the slot", 90, lambda: cluster.sql(standby, copied) == "1")
    read = f"SET statement_timeout = '2s'; SELECT count(*) FROM pg_logical_slot_get_changes('{slot}', NULL, NULL)"

    def streams() -> bool:
        cluster.sql(primary, "INSERT INTO public.marks VALUES (gen_random_uuid())")
        try:
            return int(cluster.sql(primary, read).splitlines()[-1]) > 0
        except AssertionError as refused:
            assert "statement timeout" in str(refused), refused
            return False

    assert streams()
    try:
        cluster.docker("stop", "-t", "5", cluster.container(standby))
        cluster.wait("the fencer misses the standby", 20, lambda: cluster.fencer("standby_away_seconds") > 0)
        assert not streams(), "a change reached its consumer, and not the standby"
        cluster.wait("changes go on without the standby", STANDBY_LIMIT_S + 20, lambda: cluster.fencer("changes_without_standby"))
        cluster.wait("changes are streamed", 10, streams)
        cluster.docker("start", cluster.container(standby))
        cluster.is_whole(within_s=90)
        cluster.wait("changes wait again", 90, lambda: not cluster.fencer("changes_without_standby"))
        assert cluster.sql(primary, "SHOW synchronized_standby_slots") == standby
        assert cluster.sql(standby, copied) == "1"
        assert streams()
    finally:
        cluster.sql(cluster.primary(), f"SELECT pg_drop_replication_slot('{slot}')")
