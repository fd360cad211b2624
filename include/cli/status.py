"""``status``: what runs, whether it is well, and what takes space."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from include.cli.console import ME, out, say, seconds, size
from include.cli.processes import children, rss, tree
from include.cli.state import Parallel, ServiceState, how_to_look, survey
from include.platform.catalog import BY_NAME
from include.platform.jre import LEFT_OUT
from include.platform.settings import Settings, settings

LATE_S = 4.0
"""How much longer than the services the pipelines and the disk may take; after that they are left out."""
RUNS = ("starting", "healthy", "external", "unhealthy", "stopping", "paused")
STYLES = {"healthy": "green", "external": "green", "stopped": "dim", "unhealthy": "red", "failed": "red"}


def status(s: Settings = settings) -> dict[str, Any]:
    """``{healthy, services, pipelines, disk}``, ready for JSON; see ``./shudl status --help``. Changes nothing."""
    beside = Parallel({"disk": lambda: disk(s), "pipelines": lambda: _pipelines(s)})
    states = survey(s=s)
    answers = {key: None if isinstance(value, Exception) else value for key, value in beside.results(LATE_S).items()}
    by_parent = children()
    services = [{**asdict(state), "healthy": state.healthy, "rss_mb": _rss_mb(state, by_parent)} for state in states]
    return {
        "healthy": all(state.healthy or state.left_out for state in states),
        "services": services,
        "pipelines": answers["pipelines"] or [],
        "disk": answers["disk"] or {},
    }


def _rss_mb(state: ServiceState, by_parent: dict[int, list[int]]) -> int:
    return round(rss(tree(state.pid, by_parent)) / 1e6) if state.pid else 0


def _pipelines(s: Settings) -> list[dict[str, Any]]:
    from include.platform.endpoints import local_endpoints

    endpoints = local_endpoints(s)
    host, _, port = endpoints["shudl_kafka"].address.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return []
    from include.cdc.status import pipelines

    return pipelines(endpoints)


def _bytes(folder: Path) -> int:
    """Bytes on disk below ``folder``; what vanishes meanwhile or cannot be read counts nothing."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += (
                        _bytes(Path(entry.path))
                        if entry.is_dir(follow_symlinks=False)
                        else entry.stat(follow_symlinks=False).st_blocks * 512
                    )
                except OSError:
                    continue
    except OSError:
        return total
    return total


def disk(s: Settings = settings) -> dict[str, Any]:
    """``{free_mb, data_mb: {folder: MB}, logs_mb: {service: MB}}``, the largest first."""
    data = {path.name: _bytes(path) for path in (s.home / "data").glob("*")}
    logs: dict[str, int] = {}
    for path in (s.home / "logs").glob("*"):
        name = path.name.partition(".")[0]
        logs[name] = logs.get(name, 0) + (_bytes(path) if path.is_dir() else path.stat().st_blocks * 512)
    place = s.home if s.home.exists() else Path.cwd()
    return {
        "free_mb": round(shutil.disk_usage(place).free / 1e6),
        "data_mb": {name: round(count / 1e6, 1) for name, count in sorted(data.items(), key=lambda item: -item[1])},
        "logs_mb": {name: round(count / 1e6, 1) for name, count in sorted(logs.items(), key=lambda item: -item[1])},
    }


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print what :func:`status` found."""
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    services = found["services"]
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("layer", no_wrap=True, style="dim")
    table.add_column("service", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("up", no_wrap=True, justify="right")
    table.add_column("memory", no_wrap=True, justify="right")
    table.add_column("where", no_wrap=True, style="dim", ratio=1)
    layer = ""
    for service in services:
        style = STYLES.get(service["state"], "yellow")
        runs = service["state"] in RUNS
        table.add_row(
            service["layer"] if service["layer"] != layer else "",
            service["name"],
            Text(service["state"], style=style),
            seconds(service["uptime_s"]) if service["uptime_s"] else "",
            f"{service['rss_mb']} MB" if service["rss_mb"] else "",
            service["url"].rpartition("@")[2] if runs else "",
        )
        layer = service["layer"]
    out.print(table)
    missing: dict[str, list[str]] = {}
    for service in services:
        if service["state"] == LEFT_OUT:
            missing.setdefault(service["reason"], []).append(service["name"])
        elif service["reason"] and service["state"] != "starting":
            told = f"  {service['name']}: {service['reason']} → {how_to_look(service['name'])}"
            out.print(Text(told, style="red"), soft_wrap=True)
    for reason, names in missing.items():
        out.print(Text(f"  left out: {', '.join(names)}: {reason}", style="yellow"), soft_wrap=True)
    _show_pipelines(found["pipelines"])
    _show_disk(found["disk"])
    total = sum(service["rss_mb"] for service in services)
    well = sum(service["healthy"] for service in services)
    out_of_it = sum(service["state"] == LEFT_OUT for service in services)
    line = f"{well} of {len(BY_NAME)} services healthy" + (f", {out_of_it} left out" if out_of_it else "")
    line += f", {total / 1000:.1f} GB of memory" if total else ""
    out.print()
    if found["healthy"]:
        say(f"[green]{line}[/]")
    else:
        say(f"[yellow]{line}[/] · {ME} up starts what is missing")


def _show_pipelines(pipelines: list[dict[str, Any]]) -> None:
    for pipeline in pipelines:
        proof = pipeline["proof"]
        proved = f"last proof: {proof['unresolved']} unresolved, {proof['written_at']}" if proof else "not proved yet"
        out.print()
        say(f"[bold]{pipeline['source']}[/]  connector {_coloured(pipeline['connector'], 'RUNNING')} · {proved}")
        if pipeline["reason"]:
            out.print(Text(f"  {pipeline['reason']}", style="red"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for header, justify in (
            ("table", "left"),
            ("mode", "left"),
            ("Flink job", "left"),
            ("changes behind", "right"),
            ("last commit", "right"),
        ):
            table.add_column(header, justify=justify, no_wrap=True)
        for row in pipeline["tables"]:
            behind = "" if row["behind"] is None else f"{row['behind']:,}"
            committed = row["committed_at_ms"]
            ago = f"{seconds(max(0.0, time.time() - committed / 1000))} ago" if committed else ""
            table.add_row(row["table"], row["mode"], _coloured(row["job"], "RUNNING"), behind, ago)
        out.print(table)


def _coloured(state: str | None, good: str) -> str:
    return f"[{'green' if state == good else 'red' if state else 'dim'}]{state or 'unknown'}[/]"


def _show_disk(found: dict[str, Any]) -> None:
    if not found:
        return

    def largest(sizes: dict[str, float]) -> str:
        return ", ".join(f"{name} {size(mb * 1e6)}" for name, mb in list(sizes.items())[:5] if mb >= 1) or "under 1 MB each"

    out.print()
    for what, key in (("data", "data_mb"), ("logs", "logs_mb")):
        if found[key]:
            say(f"[dim]{what}[/] {size(sum(found[key].values()) * 1e6)} [dim]({largest(found[key])})[/]")
    say(f"[dim]disk[/] {size(found['free_mb'] * 1e6)} free")
