"""docker-bake.hcl names every image that there is, as this version."""

from __future__ import annotations

import re

import pytest

from include.platform.settings import ROOT

BAKE = (ROOT / "docker" / "docker-bake.hcl").read_text()
BUILDERS = {"common", "engines"}
"""Folders of images in which nothing runs."""
DOCKERFILES = {path.parent.name: path.read_text() for path in (ROOT / "docker" / "services").glob("*/Dockerfile")}


def listed(key: str) -> list[set[str]]:
    """The lists called ``key`` in the bake file."""
    return [set(re.findall(r'"(.+?)"', names)) for names in re.findall(rf"{key} *= \[(.*?)\]", BAKE, re.S)]


def test_every_dockerfile_has_a_target_and_every_target_a_dockerfile() -> None:
    runs_engines, runs_others = listed("image")
    assert runs_engines | runs_others | BUILDERS == set(DOCKERFILES)
    assert set.union(*listed("targets")) - {"core", "ha", "access", "monitoring"} == runs_engines | runs_others
    assert runs_engines == {name for name, text in DOCKERFILES.items() if "--from=engines" in text}


@pytest.mark.parametrize("image", sorted(set(DOCKERFILES) - BUILDERS))
def test_images_run_their_entrypoint_as_nobody_special_and_say_how_they_are(image: str) -> None:
    last = DOCKERFILES[image].rpartition("\nFROM ")[2] or DOCKERFILES[image]
    entrypoint = f'ENTRYPOINT ["tini", "--", "bash", "/opt/shudl/docker/services/{image}/entrypoint.sh"]'
    assert "\nUSER 1000:1000\n" in last and "\nHEALTHCHECK " in last and entrypoint in last


def test_the_version_is_the_repository_s() -> None:
    version = (ROOT / "docker" / "VERSION").read_text().strip()
    assert re.search(r'variable "VERSION" \{[^}]*default = "(.+)"', BAKE)[1] == version
