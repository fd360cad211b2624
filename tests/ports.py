"""Blocks of ports for tests that run a platform of their own."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from include.platform.settings import PORT_OFFSETS, settings


def free_block() -> int:
    """The first port of a block of which nothing uses any port that ShuDL would."""
    for base in range(22000, 32000, 100):
        with ExitStack() as probes:
            try:
                for offset in PORT_OFFSETS.values():
                    probes.enter_context(socket.socket()).bind((settings.host, base + offset))
            except OSError:
                continue
            return base
    raise RuntimeError("no free block of ports from 22000 to 32000")
