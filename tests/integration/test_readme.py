"""What the README and the guides tell people to type works, word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from include.platform.settings import ROOT
from tests.live import Platform

PAGES = (ROOT / "README.md", ROOT / "docs" / "troubleshooting.md")
BLOCKS = [block for page in PAGES for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.M | re.S)]
SHORTER = {
    # The demo's replay ends soon, so that it does not go on under the tests that follow.
    "DEMO": "--until 2013-12-04",
    # The tests do not run themselves again, only enough of them to see that the command works.
    "TESTS": "tests/unit/test_demo_pace.py",
}


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][:40] for block in BLOCKS])
def test_block(published: Platform, block: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=ROOT,
        env={**os.environ, **SHORTER},
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


def test_the_two_commands_are_there() -> None:
    assert {"make demo\n", "make test\n"} <= set(BLOCKS)
