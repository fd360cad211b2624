"""What the tests of the monitoring share: its programs, its rendered configuration, the expressions of alerts and panels."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.platform.settings import ROOT

SERVICES = ROOT / "docker" / "services"
RULES = sorted((SERVICES / "prometheus" / "config" / "rules").glob("*.yml"))
DASHBOARDS = sorted((SERVICES / "grafana" / "dashboards").glob("*.json"))
VERSION = (ROOT / "docker" / "VERSION").read_text().strip()
IMAGE_OF = {"promtool": "prometheus", "prometheus-blackbox-exporter": "prometheus", "amtool": "alertmanager"}
GRAFANA = {"$__rate_interval": "5m", "$__interval": "5m", "$service": ".+", "$text": ""}
"""What Grafana puts in the place of its variables."""


@dataclass(frozen=True)
class Expression:
    """PromQL or LogQL, and where it stands."""

    where: str
    text: str
    source: str


def has_image(image: str) -> bool:
    """Whether Docker answers and has this image of ours."""
    if not shutil.which("docker"):
        return False
    command = ["docker", "image", "inspect", f"shudl/{image}:{VERSION}"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def run(program: str, *args: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one of Prometheus's programs on files below ``folder`` and ``docker/services``; skips where there is none."""
    command = [program]
    if not shutil.which(program):
        image = IMAGE_OF[program]
        if not has_image(image):
            pytest.skip(f"{program} is neither on PATH nor in an image: make images IMAGES={image}")
        mounts = [option for path in (folder, SERVICES) for option in ("--volume", f"{path}:{path}:ro")]
        command = ["docker", "run", "--rm", "--network", "none", "--user", "0:0", *mounts, "--entrypoint", program]
        command.append(f"shudl/{image}:{VERSION}")
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, timeout=180)


def render(service: str, folder: Path, env: dict[str, str], programs: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a service's entrypoint with programs that only write down how they were called, in ``folder/<program>.args``."""
    stubs = folder / "bin"
    stubs.mkdir(exist_ok=True)
    for program in programs:
        stub = stubs / program
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{folder}/{program}.args"\nenv >"{folder}/{program}.env"\nsleep 0.2\n')
        stub.chmod(0o755)
    return subprocess.run(
        ["bash", str(SERVICES / service / "entrypoint.sh")],
        env={"PATH": f"{stubs}:{os.environ['PATH']}", "RUN_DIR": str(folder / "run"), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def rules() -> Iterator[dict[str, Any]]:
    """Every rule, alert or recorded."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Expression]:
    """Of every rule, panel and annotation, with Grafana's variables filled in."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"], "prometheus")
    for name, dashboard in dashboards().items():
        for annotation in dashboard["annotations"]["list"]:
            yield Expression(f"{name}: {annotation['name']}", annotation["expr"], annotation["datasource"]["uid"])
        for panel in panels(dashboard):
            for target in panel["targets"]:
                text = target["expr"]
                for variable, value in GRAFANA.items():
                    text = text.replace(variable, value)
                yield Expression(f"{name}: {panel['title']}", text, target["datasource"]["uid"])


NOT_NAMES = frozenset(("and", "or", "unless", "bool", "offset", "start", "end", "inf", "nan"))


def metric_names(promql: str) -> set[str]:
    """The metrics that an expression reads. Enough for ours: no metric is called like a keyword or written as a matcher."""
    text = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", "", promql)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(?:sum|min|max|avg|count|topk|quantile)\b(?=\s*\()", " ", text)
    found = re.findall(r"(?<![\w:.])([A-Za-z_:][\w:]*)(?!\s*\()\b(?![\w:]*\s*\()", text)
    return {name for name in found if name.lower() not in NOT_NAMES}
