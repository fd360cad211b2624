"""What the README and the guides tell people to type works, word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.platform.settings import ROOT, settings
from tests import blocks
from tests.live import Platform

GUIDES = ("quickstart", "sources", "write-a-model", "ingest", "landing", "benchmarks", "troubleshooting", "scaling")
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in GUIDES),
]
BLOCKS = {block: page.stem for page in PAGES for block in blocks.blocks(page, containers=False)}
SHORTER = {
    # The demo's replay ends soon, so that it does not go on under the tests that follow.
    "DEMO": "--until 2013-12-04",
    # The tests do not run themselves again, only enough of them to see that the command works.
    "TESTS": "tests/unit/test_demo_pace.py",
}
SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE visits (at timestamptz NOT NULL, customer int);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 1000) AS n;
INSERT INTO visits SELECT now(), n FROM generate_series(1, 100) AS n;
"""


@pytest.fixture(scope="module")
def shop(published: Platform) -> Iterator[dict[str, str]]:
    """The variables with which the guide finds a database of the reader's."""
    source = published.endpoints["flights_db"]
    admin = make_conninfo(source.conninfo, user="postgres", password=settings.secret("postgres_superuser"), dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE shop OWNER {source.login}")
        with psycopg.connect(source.conninfo, dbname="shop", autocommit=True) as there:
            there.execute(SHOP)
        url = f"postgresql://{source.login}@{source.address}/shop"
        yield {"SOURCE_URL": url, "PGPASSWORD": source.password}
        connection.execute("DROP DATABASE shop WITH (FORCE)")


@pytest.fixture(scope="module")
def project() -> Iterator[None]:
    """Whatever becomes of the guide's model: its files do not stay."""
    yield
    for path in (ROOT / "dbt_project" / "models").rglob("*flights_by_day*"):
        path.unlink()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{page}-{block.splitlines()[0][:30]}" for block, page in BLOCKS.items()])
def test_block(published: Platform, shop: dict[str, str], project: None, block: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=ROOT,
        env={**os.environ, **SHORTER, **shop},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:]
    if block.startswith("make demo"):
        assert "0 rows unresolved" in done.stdout or "0 unresolved" in done.stdout
        assert "on time %" in done.stdout
    if "source add" in block:
        assert shop["PGPASSWORD"] not in done.stdout + (settings.pipelines / "shop.yml").read_text()


def test_the_two_commands_are_there() -> None:
    assert {"make demo\n", "make test\n"} <= set(BLOCKS)


def test_every_page_with_shell_blocks_is_run() -> None:
    assert {page for page in blocks.PAGES if blocks.blocks(page, containers=False)} <= set(PAGES)


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"
