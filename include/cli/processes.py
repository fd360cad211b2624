"""Memory of the processes that supervisord runs, children included."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from include.platform.settings import Settings, settings
from include.platform.supervisor import Supervisor


def children() -> dict[int, list[int]]:
    """Child process ids by parent, for every process that can be seen."""
    found: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        found[process.info["ppid"]].append(process.pid)
    return found


def tree(pid: int, by_parent: dict[int, list[int]]) -> list[int]:
    """``pid`` and all that descends from it."""
    found = [pid]
    for parent in found:
        found += by_parent.get(parent, ())
    return found


def rss(pids: list[int]) -> int:
    """Resident bytes, summed. Pages that processes share count once for each."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def pss(pids: list[int]) -> int:
    """Resident bytes with shared pages counted once; resident bytes where the system does not tell."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.split("\nPss:", 1)[1].split(None, 1)[0]) * 1024
        except (OSError, IndexError, ValueError):
            total += rss([pid])
    return total


@dataclass
class MemoryPeak:
    """Samples the memory of supervisord and everything below it while the block runs.

    ``peak`` is in bytes; ``by_service`` is what each service held at that moment, ``highest`` the most that each held.
    """

    settings: Settings = settings
    every_s: float = 2.0
    peak: int = 0
    by_service: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            self.sample()
            if self._ended.wait(self.every_s):
                return

    def sample(self) -> int:
        """Bytes in use now; 0 when supervisord does not run."""
        root = Supervisor(self.settings).pid()
        if root is None:
            return 0
        by_parent = children()
        held = {self._name(pid): pss(tree(pid, by_parent)) for pid in by_parent.get(root, ())}
        total = pss([root]) + sum(held.values())
        for name, size in held.items():
            self.highest[name] = max(size, self.highest.get(name, 0))
        if total > self.peak:
            self.peak, self.by_service = total, dict(sorted(held.items(), key=lambda item: -item[1]))
        return total

    @staticmethod
    def _name(pid: int) -> str:
        """The service that supervisord started as ``pid``: it tells each program its name."""
        try:
            return psutil.Process(pid).environ().get("SUPERVISOR_PROCESS_NAME", str(pid))
        except psutil.Error:
            return str(pid)
