"""How a problem is told: what is wrong, by name and value, and the way out."""

from __future__ import annotations

from dataclasses import dataclass


class ComposeError(ValueError):
    """Nothing was done; the text names the thing, the value and the way out."""


@dataclass(frozen=True)
class Problem:
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.what}\n    → {self.way_out}"
