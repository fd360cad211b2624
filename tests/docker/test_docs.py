"""What the guides say of the containers: tables follow from the files, links and settings exist, what they tell to type works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from include.platform.compose import page, preflight
from include.platform.settings import ROOT
from tests.blocks import PAGES, blocks
from tests.compose_platform import DEMO_S, Compose

DOCS = ROOT / "docs"
GUIDES = (DOCS / "docker.md", DOCS / "security.md", DOCS / "troubleshooting.md", DOCS / "scaling.md")
SECURITY = (DOCS / "security.md").read_text()
DOCKER = (DOCS / "docker.md").read_text()
BOOK = (DOCS / "troubleshooting.md").read_text()
BLOCKS = {block: found.stem for found in PAGES for block in blocks(found, containers=True)}


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.stem)
def test_tables_are_what_the_files_say(path: Path) -> None:
    text = path.read_text()
    assert text == page.filled(text, page.read()), "write them anew: python -m include.platform.compose.page"


def test_every_table_is_shown() -> None:
    assert all(f"<!-- {name} -->" in DOCKER + SECURITY for name in page.TABLES)


def test_a_table_without_an_end_is_named() -> None:
    with pytest.raises(ValueError, match="<!-- services --> has no <!-- end of services --> after it"):
        page.filled("<!-- services -->\n", page.read())


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", [*PAGES, *(DOCS / "adr").glob("*.md")], ids=lambda path: path.stem)
def test_links_within_pages_lead_somewhere(path: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", path.read_text()):
        target = (path.parent / file) if file else path
        assert anchor in anchors(target), f"{path.name}: {file}#{anchor}"


def test_what_it_needs_is_what_is_checked() -> None:
    docker, compose = preflight.DOCKER_LEAST, preflight.COMPOSE_LEAST
    assert f"Docker Engine {docker[0]} or newer, Compose {compose[0]}.{compose[1]} or newer" in DOCKER


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_settings_and_goals_exist(path: Path) -> None:
    """Names in capitals are settings of docker/.env or of the local platform, but for a few."""
    settings = set(re.findall(r"^(\w+)=", (ROOT / "docker" / ".env.example").read_text(), re.M))
    local = {"SHUDL_RUNTIME", "SHUDL_PORT_BASE", "SHUDL_SPARK_JAVA_HOME"}
    others = {"BUILD_CA_FILE", "ETCD_STATE", "DESCRIBE_CONFIGS", "SASL_SSL", "TRANSACTIONAL_ID", *local}
    named = set(re.findall(r"(?<![$.…_{\w])([A-Z]+(?:_[A-Z]+)+)\b", path.read_text()))
    assert named <= settings | others, named - settings - others
    goals = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for typed in re.findall(r"(?:`|^\$ |^)make ([a-z][a-z -]*)", path.read_text(), re.M):
        assert set(typed.split()) <= goals, typed


def test_what_has_no_certificate_is_said_to_speak_in_clear_text() -> None:
    said = SECURITY.partition("In clear text")[2].partition("\n## ")[0]
    silent = [name for name, service in page.read().services.items() if not page.has_certificate(service)]
    assert [name for name in silent if f"`{name}`" not in said] == []


def test_every_role_and_every_volume_is_named() -> None:
    spec = importlib.util.spec_from_file_location("databases", ROOT / "docker" / "services" / "patroni" / "databases.py")
    databases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(databases)
    roles = SECURITY.partition("## PostgreSQL")[2].partition("\n## ")[0]
    assert [role for role in databases.ROLES if f"`{role}`" not in roles] == []
    kept = DOCKER.partition("| volume |")[2].partition("\n## ")[0]
    volumes = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["volumes"]
    assert [volume for volume in volumes if f"`{volume}`" not in kept] == []


def test_what_docker_filter_lets_through_is_said() -> None:
    """The lists of its entrypoint, and the table, have the same requests."""
    written = (ROOT / "docker" / "services" / "docker-filter" / "entrypoint.sh").read_text()
    said = SECURITY.partition("## Docker")[2].partition("\n## ")[0]
    deeds = set(re.findall(r"/containers/[^/\"' ]+/([a-z]+)", written))
    assert deeds == set(re.findall(r"`(?:GET|POST) …/([a-z]+)`", said))


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{stem}-{block.splitlines()[0][:40]}" for block, stem in BLOCKS.items()])
def test_block(compose: Compose, block: str) -> None:
    """On the platform of the tests, where what is there is kept; the demo's replay ends soon."""
    script = f"export DEMO='--until 2013-12-04'\n{block}"
    done = compose.run("bash", "-euo", "pipefail", "-c", script, timeout_s=DEMO_S)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:]
