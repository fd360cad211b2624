"""When the fencer hands over, and when it does not (docker/services/fencer). tests/ha shows it on a real cluster."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from include.platform.settings import ROOT

HERE = ROOT / "docker" / "services" / "fencer"


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


standby_policy = _module("standby_policy")
fencer = _module("fencer")

REIGN = fencer.Reign("patroni1", "12", "99")
WHOLE = fencer.Cluster(REIGN, "patroni2", False)
RUNNING = fencer.Life("running", "10:00", False)
EXITED = fencer.Life("exited", "10:00", True)


@dataclass
class World:
    """What etcd and the engine say, look by look, a second apart."""

    cluster_now: Any = WHOLE
    life_now: Any = RUNNING
    now: float = 0
    ended: list[Any] = field(default_factory=list)

    def cluster(self) -> Any:
        return self.cluster_now

    def life(self, member: str) -> Any:
        if isinstance(self.life_now, Exception):
            raise self.life_now
        return self.life_now

    def end(self, reign: Any) -> bool:
        self.ended.append(reign)
        return True

    def sees(self, watcher: Any, *lives: Any) -> list[Any]:
        for life in lives:
            self.life_now, self.now = life, self.now + 1
            try:
                watcher.look()
            except fencer.Unreachable:
                continue
        return self.ended


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watcher(world: World) -> Any:
    return fencer.Fencer(world, world, exited_s=1, clock=lambda: world.now)


def test_a_primary_that_was_seen_to_lead_and_has_ended_is_replaced_once(world: World, watcher: Any) -> None:
    assert world.sees(watcher, RUNNING, EXITED) == [], "it may be about to be started again"
    assert world.sees(watcher, EXITED, EXITED, EXITED) == [REIGN]
    assert watcher.handed_over == 1


@pytest.mark.parametrize("status", ["paused", "restarting", "running", "created", "removing", "dead"])
def test_what_has_not_ended_is_left_alone(world: World, watcher: Any, status: str) -> None:
    assert world.sees(watcher, RUNNING, *[fencer.Life(status, "10:00", False)] * 20) == []


def test_an_engine_that_does_not_answer_tells_nothing(world: World, watcher: Any) -> None:
    assert world.sees(watcher, RUNNING, *[fencer.Unreachable("the engine does not answer")] * 20) == []


def test_a_quick_restart_is_left_alone(world: World, watcher: Any) -> None:
    assert world.sees(watcher, RUNNING, EXITED, replace(RUNNING, started="10:05"), replace(EXITED, started="10:05")) == []


def test_a_key_that_was_not_seen_with_this_life_is_left_alone(world: World, watcher: Any) -> None:
    assert world.sees(watcher, *[EXITED] * 5) == []
    assert world.sees(watcher, RUNNING, *[replace(EXITED, started="10:05")] * 5) == []


def test_another_reign_is_not_ended_for_an_old_one(world: World, watcher: Any) -> None:
    world.sees(watcher, RUNNING)
    world.cluster_now = replace(WHOLE, reign=replace(REIGN, lease="100", revision="20"))
    assert world.sees(watcher, *[EXITED] * 5) == []


@pytest.mark.parametrize("cluster", [replace(WHOLE, standby=""), replace(WHOLE, paused=True), replace(WHOLE, reign=None)])
def test_nothing_is_done_where_nobody_may_take_over(world: World, watcher: Any, cluster: Any) -> None:
    world.sees(watcher, RUNNING)
    world.cluster_now = cluster
    assert world.sees(watcher, *[EXITED] * 5) == []


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ({"Status": "exited"}, True),
        ({"Status": "exited", "Restarting": True}, False),
        ({"Status": "exited", "Pid": 7}, False),
        ({"Status": "paused", "Running": True, "Paused": True, "Pid": 7}, False),
        ({"Status": "restarting", "Restarting": True, "Running": True}, False),
        ({"Status": "dead"}, False),
    ],
)
def test_what_docker_says_of_a_container(monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], ended: bool) -> None:
    told = {"Running": False, "Paused": False, "Restarting": False, "Pid": 0, "StartedAt": "10:00", **state}
    answer = type("Answer", (), {"status": 200, "json": staticmethod(lambda: {"State": told})})
    engine = fencer.Engine("http://filter", "shudl")
    monkeypatch.setattr(engine._http, "request", lambda *_: answer)
    assert engine.life("patroni1") == fencer.Life(state["Status"], "10:00", ended)
