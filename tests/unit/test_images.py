"""docker-bake.hcl names every image that there is, as this version."""

from __future__ import annotations

import re

from include.platform.settings import ROOT

BAKE = (ROOT / "docker" / "docker-bake.hcl").read_text()


def test_every_dockerfile_has_a_target_and_every_target_a_dockerfile() -> None:
    folders = {path.parent.name for path in (ROOT / "docker" / "services").glob("*/Dockerfile")}
    made = {name for names in re.findall(r"image = \[(.*?)\]", BAKE, re.S) for name in re.findall(r'"(.+?)"', names)}
    assert made | {"common", "engines"} == folders
    grouped = {name for names in re.findall(r"targets = \[(.*?)\]", BAKE, re.S) for name in re.findall(r'"(.+?)"', names)}
    assert grouped - {"core", "access", "monitoring"} == made


def test_the_version_is_the_repository_s() -> None:
    version = (ROOT / "docker" / "VERSION").read_text().strip()
    assert re.search(r'variable "VERSION" \{[^}]*default = "(.+)"', BAKE)[1] == version
