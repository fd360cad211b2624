"""What Docker says of the platform's containers, as the command line shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from docker.errors import NotFound

from include.cli.console import USAGE, CliError
from include.platform.catalog import BY_NAME, CONTROL_PLANE
from include.platform.containers import STATES, WORST_FIRST, Containers, container_names


class Look(Containers):
    """Looks at containers, by service."""

    def info(self, name: str) -> dict[str, Any]:
        """``{state, pid, uptime_s, detail}`` of a service, as its local supervisor gives it; ``pid`` is always None.

        A service of several containers is as its worst one, and as young as its youngest. ``killed`` is added, and says
        why, when the kernel ended it for want of memory.
        """
        try:
            states = [found["State"] for found in self._inspect(name)]
        except NotFound:
            return {"state": "stopped", "pid": None, "uptime_s": 0, "detail": self.left_out(name)}
        worst = min(states, key=lambda state: WORST_FIRST.index(STATES[state["Status"]]))
        info = {"state": STATES[worst["Status"]], "pid": None, "uptime_s": 0, "detail": ""}
        if info["state"] == "running":
            born = max(datetime.fromisoformat(state["StartedAt"]) for state in states)
            info["uptime_s"] = max(0, int((datetime.now(UTC) - born).total_seconds()))
        else:
            info["detail"] = f"ended with code {worst['ExitCode']}"
        if worst.get("OOMKilled"):
            info["killed"] = "ended by the kernel: its memory limit is too low (docker/.env)"
        return info

    def published(self, name: str) -> dict[int, int]:
        """The ports of a service that the host has, by the container's own; empty when it was not created."""
        ports = {}
        try:
            for found in self._inspect(name):
                for port, bound in (found["HostConfig"]["PortBindings"] or {}).items():
                    if bound and bound[0]["HostPort"]:
                        ports[int(port.partition("/")[0])] = int(bound[0]["HostPort"])
        except NotFound:
            pass
        return ports

    def logs(self, name: str, lines: int) -> dict[str, str]:
        """The last lines that each container of a service has logged. Raises NotFound when one was not created."""
        found = {}
        for container in container_names(name):
            with self._asking(name):
                found[container] = self._api.logs(container, tail=lines).decode(errors="replace")
        return found

    def _inspect(self, name: str) -> list[dict[str, Any]]:
        found = []
        for container in container_names(name):
            with self._asking(name):
                found.append(self._api.inspect_container(container))
        return found


def show_logs(name: str, lines: int, follow: bool) -> None:
    """Print the last lines of a service's containers, each under its name where there are several."""
    look = Look()
    on_host = f"on the host: {look.how_to_look(name)}"
    if follow:
        raise CliError(f"--follow: from a container logs cannot be followed; {on_host} --follow", USAGE)
    if BY_NAME[name] in CONTROL_PLANE:
        raise CliError(f"{name} is a part of Airflow, whose containers are closed to all that Airflow runs; {on_host}")
    try:
        found = look.logs(name, lines)
    except NotFound:
        raise CliError(f"{name} has no log: {look.left_out(name)}") from None
    if lines and not any(found.values()):
        raise CliError(f"{name} has logged nothing yet")
    for container, text in found.items():
        if len(found) > 1:
            print(f"==> {container} <==")
        print(text, end="" if text.endswith("\n") or not text else "\n")
