"""The shell blocks of the README and the guides, and on which platform each is run.

A block of ```` ```bash ```` is run by a test, word by word: where it is about containers by ``tests/docker/test_docs.py``, else
by ``tests/integration/test_readme.py``. What must not be run stands in a block of another kind.
"""

from __future__ import annotations

import re
from pathlib import Path

from include.platform.settings import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ABOUT_CONTAINERS = ("docker.md", "postgresql-ha.md", "security.md")


def blocks(page: Path, containers: bool) -> list[str]:
    """The blocks of ``page`` that are run in containers, or those that are run on one machine."""
    found = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [block for block in found if (page.name in ABOUT_CONTAINERS or "docker" in block) == containers]
