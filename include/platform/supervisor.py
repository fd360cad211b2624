"""The local runtime: services as processes under supervisord, spoken to by XML-RPC.

supervisord restarts what crashes. It runs as a daemon of its own, so that services outlive the command
that started them.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from include.platform import jre
from include.platform.catalog import CONTROL_PLANE, OWN, Service, service
from include.platform.environment import service_environment
from include.platform.runtime import RuntimeUnavailable
from include.platform.settings import ROOT, Settings, settings

LOG_MAX_BYTES = "20MB"
LOG_BACKUPS = 2

STATES = {0: "stopped", 10: "starting", 20: "running", 30: "restarting", 40: "stopping", 100: "stopped", 200: "failed"}
"""supervisord's state codes in our words; ``failed`` means that it gave up restarting."""

HELD_DOWN = (0, 200)
"""The state codes of what supervisord does not start by itself."""
RESTARTS_WITHIN_S = 10


class SupervisorError(RuntimeUnavailable):
    """supervisord cannot be reached or refused; the text says what to do."""


def _quote(value: str) -> str:
    return '"' + value.replace("%", "%%").replace('"', '\\"') + '"'


def _program(s: Settings, svc: Service, env: dict[str, str], priority: int) -> str:
    variables = ",".join(f"{key}={_quote(value)}" for key, value in sorted(env.items()))
    return f"""
[program:{svc.name}]
command=bash docker/services/{svc.entrypoint}/entrypoint.sh
directory={ROOT}
environment={variables}
priority={priority}
autostart=false
autorestart=true
startsecs=3
startretries=20
stopsignal={svc.stop_signal}
stopwaitsecs={svc.stop_timeout_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={s.logs}/{svc.name}.log
stdout_logfile_maxbytes={LOG_MAX_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def render_config(s: Settings = settings) -> str:
    """supervisord's configuration for every service of ours and for Airflow."""
    head = f"""[supervisord]
pidfile={s.run("supervisor")}/supervisord.pid
logfile={s.logs}/supervisord.log
logfile_maxbytes={LOG_MAX_BYTES}
logfile_backups={LOG_BACKUPS}
childlogdir={s.logs}
minfds=4096

[inet_http_server]
port={s.host}:{s.port("supervisor")}
username=shudl
password={s.secret("supervisor")}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    everything = enumerate((*CONTROL_PLANE, *OWN))
    return head + "".join(_program(s, svc, service_environment(svc.name, s), priority) for priority, svc in everything)


class Supervisor:
    """The supervisord of one checkout."""

    def __init__(self, s: Settings = settings) -> None:
        self.settings = s

    @property
    def config_file(self) -> Path:
        return self.settings.run("supervisor") / "supervisord.conf"

    @property
    def rpc(self) -> xmlrpc.client.ServerProxy:
        s = self.settings
        url = f"http://shudl:{s.secret('supervisor')}@{s.host}:{s.port('supervisor')}/RPC2"
        return xmlrpc.client.ServerProxy(url, allow_none=True)

    def pid(self) -> int | None:
        """The process id of this checkout's supervisord, or None when it does not run."""
        try:
            pid = int((self.settings.run("supervisor") / "supervisord.pid").read_text())
            command = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if str(self.config_file) in command else None

    def running(self) -> bool:
        return self.pid() is not None

    def launch(self, timeout_s: float = 20) -> None:
        """Start supervisord, or give a running one the present configuration. Services stay as they are."""
        config = render_config(self.settings)
        changed = not self.config_file.exists() or self.config_file.read_text() != config
        if changed:
            fd = os.open(self.config_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(config)
        if self.running():
            if changed:
                self._reload()
            return
        env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV",)}
        env["PYTHONPATH"] = str(ROOT)
        env["SPT_NOENV"] = "1"  # setproctitle: a process that renames itself keeps the environment that tells whose it is
        subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config_file)],
            check=True,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.rpc.supervisor.getState()
                return
            except (OSError, http.client.HTTPException, xmlrpc.client.Error):
                if time.monotonic() > deadline:
                    raise SupervisorError(
                        f"supervisord did not answer within {timeout_s:.0f} s; see {self.settings.logs}/supervisord.log"
                    ) from None
                time.sleep(0.1)

    def _reload(self) -> None:
        added, changed, removed = self.rpc.supervisor.reloadConfig()[0]
        for name in (*changed, *removed):
            was = self.state(name)
            self.stop(name)
            self.rpc.supervisor.removeProcessGroup(name)
            if name in changed:
                self.rpc.supervisor.addProcessGroup(name)
                if was in ("running", "starting"):
                    self.start(name)
        for name in added:
            self.rpc.supervisor.addProcessGroup(name)

    def _call(self, method: str, *args: object) -> object:
        try:
            return getattr(self.rpc.supervisor, method)(*args)
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorError(f"supervisord does not run ({error}); start it with ./shudl up") from None
        except xmlrpc.client.ProtocolError as error:  # its own text holds the password
            port = self.settings.port("supervisor")
            raise SupervisorError(
                f"port {port} answers HTTP {error.errcode} {error.errmsg}: is it the supervisord of {self.settings.home}?"
            ) from None

    def start(self, name: str) -> bool:
        """Start a service without waiting for it. False when it runs already."""
        service(name)
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultString.startswith("ALREADY_STARTED"):
                return False
            raise SupervisorError(f"{name}: {fault.faultString}; see ./shudl logs {name}") from None
        return True

    def stop(self, name: str) -> bool:
        """Stop a service and wait until it has ended. False when it did not run."""
        service(name)
        deadline = time.monotonic() + RESTARTS_WITHIN_S
        while True:
            try:
                self._call("stopProcess", name, True)
            except xmlrpc.client.Fault as fault:
                if not fault.faultString.startswith("NOT_RUNNING"):
                    raise SupervisorError(f"{name}: {fault.faultString}; see ./shudl logs {name}") from None
                code = self._call("getProcessInfo", name)["state"]
                if code in HELD_DOWN or time.monotonic() > deadline:
                    return False
                time.sleep(0.1)  # it has crashed, and is about to be started again
            else:
                return True

    def crash(self, name: str, part: str = "") -> None:
        """SIGKILL to all processes of a service, which supervisord starts again."""
        pid = self.info(name)["pid"]
        if pid is None:
            raise SupervisorError(f"{name} does not run; start it with ./shudl up")
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        with suppress(psutil.NoSuchProcess):
            process.wait(RESTARTS_WITHIN_S)

    def kill(self, name: str, part: str = "") -> None:
        """SIGKILL to all processes of a service, which stays down."""
        self.crash(name)
        self.stop(name)

    def stop_many(self, names: Iterable[str]) -> None:
        """Stop services at once and wait until all have ended."""
        pending = list(names)
        for name in pending:
            try:
                self._call("stopProcess", name, False)
            except xmlrpc.client.Fault:
                continue
        deadline = time.monotonic() + max((service(name).stop_timeout_s for name in pending), default=0) + 10
        while any(self.state(name) in ("stopping", "running", "starting") for name in pending):
            if time.monotonic() > deadline:
                raise SupervisorError(f"still running: {', '.join(n for n in pending if self.state(n) != 'stopped')}")
            time.sleep(0.2)

    def state(self, name: str) -> str:
        """One of the values of :data:`STATES`; ``stopped`` when supervisord itself does not run."""
        return self.info(name)["state"]

    def left_out(self, name: str) -> str:
        """Why this machine leaves the service out; empty for one that it can run."""
        return jre.left_out(name, self.settings)

    def how_to_look(self, name: str) -> str:
        return f"./shudl logs {name}"

    def info(self, name: str) -> dict:
        """``{state, pid, uptime_s, detail}`` of a service."""
        service(name)
        if not self.running():
            return {"state": "stopped", "pid": None, "uptime_s": 0, "detail": "supervisord does not run"}
        raw = self._call("getProcessInfo", name)
        state = STATES.get(raw["state"], raw["statename"].lower())
        uptime = raw["now"] - raw["start"] if state == "running" else 0
        return {"state": state, "pid": raw["pid"] or None, "uptime_s": uptime, "detail": raw["description"]}

    def shutdown(self, timeout_s: float = 90) -> None:
        """End supervisord and with it everything that it runs."""
        pid = self.pid()
        if pid is None:
            return
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            raise SupervisorError(f"supervisord (pid {pid}) did not end within {timeout_s:.0f} s") from None


def port_holder(port: int, s: Settings = settings) -> str | None:
    """Who listens on ``port``, as ``pid 12 (java)``; None when it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((s.host, port))
            return None
        except OSError:
            pass
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another program"


def taken_ports(names: Iterable[str], s: Settings = settings) -> list[str]:
    """What another program already listens on, as ``port 21040 (kafka: kafka) is taken by pid 12 (java)``."""
    ports = [(name, port_name, s.port(port_name)) for name in names for port_name in service(name).ports]
    return [
        f"port {port} ({name}: {port_name}) is taken by {holder}"
        for name, port_name, port in ports
        if (holder := port_holder(port, s))
    ]
