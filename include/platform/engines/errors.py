"""What can go wrong while installing, as one paragraph for the user."""

from __future__ import annotations

import os

from include.platform.engines.places import places


class EngineError(RuntimeError):
    """Something that keeps an environment or engine from being installed; the text is for the user."""


class Cancelled(Exception):
    """Raised in a worker when another one failed or the user interrupted."""


def no_space() -> str:
    stat = os.statvfs(places.installed)
    free = stat.f_bavail * stat.f_frsize / 1e9
    return (
        f"no space left on the disk of {places.installed} or of the package caches ({free:.1f} GB free in the former; "
        "a first installation takes about 6 GB). Free some, or set SHUDL_HOME to a folder on a larger disk, "
        "and run the same command again: it goes on where it stopped."
    )


def explain(what: str, output: str) -> str:
    """What a package client's failure means: what failed, its last words, and the way out."""
    lower = output.lower()
    words = " ".join(output[max(lower.find("error: "), 0) :].split())[:500]
    if "no space left" in lower:
        return no_space()
    if "hash mismatch" in lower or "do not match the hashes" in lower:
        return (
            f"{what}: a downloaded package is not the one that was locked, and it was not installed. Run the same "
            f"command again; if it stays so, whatever serves your packages changes them. {words}"
        )
    network = ("dns error", "error sending request", "failed to fetch", "connection", "timed out")
    if any(sign in lower for sign in network):
        return f"{what}: the package index cannot be reached. Check the network or the proxy and run again. {words}"
    return f"{what} could not be installed. {words}"
