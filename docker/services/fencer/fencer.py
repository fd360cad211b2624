"""Hands PostgreSQL over at once when the container of its primary has ended.

Patroni waits until the primary's lease in etcd runs out, at least 20 s: it cannot know whether a primary that is silent has
ended. The engine knows. What is deleted is the very leader key that this life of the container was seen to hold, in one
transaction that compares its revision and lease: a primary that is back holds another, and nothing happens. A primary that is
paused, cut off or slow still runs, and is left to Patroni. So is one that Docker restarts.

:mod:`standby_policy` runs beside it.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standby_policy
import urllib3

PREFIX = "/patroni/shudl/"
"""Namespace and scope in Patroni's configuration."""
TICK_S = 0.5
ALIVE_S = 30
"""Without a look for so long the process is not healthy."""
log = logging.getLogger("fencer")


class Unreachable(RuntimeError):
    """etcd or the engine does not answer; the text says which."""


@dataclass(frozen=True)
class Reign:
    """The leader key: who holds it, and by which write and lease. Another reign never has the same."""

    member: str
    revision: str
    lease: str


@dataclass(frozen=True)
class Cluster:
    """What Patroni's members agree on: ``standby`` may become the primary without losing an acknowledged change."""

    reign: Reign | None
    standby: str
    paused: bool


@dataclass(frozen=True)
class Life:
    """A container from one start to its end."""

    status: str
    started: str
    ended: bool


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


class Etcd:
    """etcd by its JSON gateway. Of several members the one that answered last is asked first."""

    def __init__(self, members: list[str], context: ssl.SSLContext) -> None:
        self._members = members
        self._http = urllib3.PoolManager(ssl_context=context, timeout=urllib3.Timeout(connect=0.5, read=1.5), retries=False)

    def _call(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        failure = ""
        for member in list(self._members):
            try:
                answer = self._http.request("POST", f"https://{member}:2379/v3/kv/{what}", json=body)
                if answer.status == 200:
                    return answer.json()
                failure = f"{member}: HTTP {answer.status}"
            except urllib3.exceptions.HTTPError as error:
                failure = f"{member}: {type(error).__name__}"
            self._members.append(self._members.pop(0))
        raise Unreachable(f"etcd does not answer: {failure}")

    def cluster(self) -> Cluster:
        """As a majority has it."""
        found = self._call("range", {"key": _text(PREFIX), "range_end": _text(PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1))})
        keys = {base64.b64decode(kv["key"]).decode().removeprefix(PREFIX): kv for kv in found.get("kvs", ())}

        def value(name: str) -> str:
            return base64.b64decode(keys[name]["value"]).decode() if name in keys else ""

        leader = keys.get("leader")
        reign = Reign(value("leader"), leader["mod_revision"], leader.get("lease", "0")) if leader else None
        sync, config = json.loads(value("sync") or "{}"), json.loads(value("config") or "{}")
        standby = sync.get("sync_standby") if reign and sync.get("leader") == reign.member else None
        return Cluster(reign, standby or "", bool(config.get("pause")))

    def end(self, reign: Reign) -> bool:
        """Delete the leader key if it is still this one. False when it is not."""
        key = _text(f"{PREFIX}leader")
        same = [
            {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": reign.revision},
            {"key": key, "target": "LEASE", "result": "EQUAL", "lease": reign.lease},
        ]
        return bool(self._call("txn", {"compare": same, "success": [{"request_delete_range": {"key": key}}]}).get("succeeded"))


class Engine:
    """What the engine knows of the members' containers."""

    def __init__(self, url: str, project: str) -> None:
        self._url, self._project = url, project
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=3), retries=False)

    def life(self, member: str) -> Life:
        """Of the member's container. ``ended``: all its processes have."""
        try:
            answer = self._http.request("GET", f"{self._url}/v1.43/containers/{self._project}-{member}-1/json")
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"the engine does not answer: {type(error).__name__}") from None
        if answer.status != 200:
            raise Unreachable(f"the engine does not tell of {member}: HTTP {answer.status}")
        state = answer.json()["State"]
        ended = state["Status"] == "exited" and not (state["Running"] or state["Paused"] or state["Restarting"] or state["Pid"])
        return Life(state["Status"], state["StartedAt"], ended)


@dataclass
class Fencer:
    """One look at a time, by :meth:`look`. ``held``: the reign, and the life of the container that was seen to have it."""

    etcd: Etcd
    engine: Engine
    exited_s: float
    clock: Callable[[], float] = time.monotonic
    held: tuple[Reign, str] | None = None
    ended_at: float | None = None
    handed_over: int = 0
    _told: str = field(default="", repr=False)

    def look(self) -> None:
        """Raises :class:`Unreachable`, and then knows no more than before."""
        cluster = self.etcd.cluster()
        reign = cluster.reign
        if reign is None:
            self.held = self.ended_at = None
            return
        life = self.engine.life(reign.member)
        if not life.ended:
            self.ended_at = None
            if life.status == "running" and (self.held is None or self.held[0] != reign):
                self.held = (reign, life.started)
            return
        if self.held != (reign, life.started):
            self._tell(f"{reign.member}: its container has ended; it was not seen to hold this leader key: left to Patroni")
            return
        if self.ended_at is None:
            self.ended_at = self.clock()
        if self.clock() - self.ended_at < self.exited_s:
            return
        if cluster.paused or not cluster.standby:
            reason = "Patroni is paused" if cluster.paused else "no standby has all that was acknowledged"
            self._tell(f"{reign.member}: its container has ended, but {reason}: the leader key stays")
            return
        if self.etcd.end(reign):
            self.handed_over += 1
            self._tell(
                f"{reign.member}: its container has ended; deleted its leader key (revision {reign.revision}, "
                f"lease {reign.lease}), {cluster.standby} may take over"
            )
        else:
            self._tell(f"{reign.member}: the leader key has changed meanwhile: nothing done")
        self.held = self.ended_at = None

    def _tell(self, text: str) -> None:
        if text != self._told:
            log.warning("%s", text)
            self._told = text


@dataclass
class Watch:
    """Calls ``look`` for ever. ``seen``: whether the last look succeeded; ``last``: when it ended."""

    name: str
    look: Callable[[], None]
    pause_s: float
    failures: tuple[type[Exception], ...]
    seen: bool = False
    last: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        told = None
        while True:
            try:
                self.look()
                self.seen, failure = True, ""
            except self.failures as error:
                self.seen, failure = False, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if failure != told:
                log.warning("%s: %s", self.name, failure or "watching")
                told = failure
            self.last = time.monotonic()
            time.sleep(self.pause_s)


def serve(port: int, watches: list[Watch], metrics: Callable[[], dict[str, float]]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                status, body = 200, "".join(f"{name} {value}\n" for name, value in metrics().items())
            elif self.path == "/healthz":
                late = [watch.name for watch in watches if time.monotonic() - watch.last > ALIVE_S]
                status, body = (503, f"stuck: {', '.join(late)}\n") if late else (200, "ok\n")
            else:
                status, body = 404, ""
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    env = os.environ
    context = ssl.create_default_context(cafile=env["TLS_CA_FILE"])
    context.load_cert_chain(env["TLS_CERT_FILE"], env["TLS_KEY_FILE"])
    etcd = Etcd(env["ETCD_MEMBERS"].split(), context)
    fencer = Fencer(etcd, Engine(env["FENCER_ENGINE"], env["FENCER_PROJECT"]), float(env["FENCER_EXITED_S"]))
    policy = standby_policy.Policy.from_env(env)
    watches = [
        Watch("primary", fencer.look, TICK_S, (Unreachable, ValueError, KeyError)),
        Watch("standby", policy.look, standby_policy.TICK_S, standby_policy.FAILURES),
    ]
    for watch in watches:
        threading.Thread(target=watch.run, name=watch.name, daemon=True).start()
    serve(
        int(env["FENCER_PORT"]),
        watches,
        lambda: {
            "fencer_watches_primary": int(watches[0].seen),
            "fencer_watches_standby": int(watches[1].seen),
            "fencer_handed_over_total": fencer.handed_over,
            "fencer_standby_away_seconds": policy.away_s,
            "fencer_standby_limit_seconds": policy.limit_s,
            "fencer_changes_without_standby": int(policy.without),
        },
    )


if __name__ == "__main__":
    main()
