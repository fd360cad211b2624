"""The demo's source database, by a libpq connection string: load it, replay it, ask how far it is."""

from __future__ import annotations

from include.demo.load import LoadProgress, LoadReport, load
from include.demo.replay import ReplayProgress, ReplayReport, replay
from include.demo.state import Counts, DemoError, Position, describe, position, summary

__all__ = [
    "Counts",
    "DemoError",
    "LoadProgress",
    "LoadReport",
    "Position",
    "ReplayProgress",
    "ReplayReport",
    "describe",
    "load",
    "position",
    "replay",
    "summary",
]
