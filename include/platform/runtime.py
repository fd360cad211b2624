"""What starts and stops services: supervisord on one machine, Docker on a server.

Both answer the same questions in the same words, so that DAGs and command line need not know which it is.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

from include.platform.settings import Settings, settings


class RuntimeUnavailable(RuntimeError):
    """What runs the services cannot be reached or refused; the text says what to do."""


class Runtime(Protocol):
    """Starts and stops services of the catalogue, by name."""

    def start(self, name: str) -> bool:
        """Start a service without waiting for it. False when it runs already."""

    def stop(self, name: str) -> bool:
        """Stop a service and wait until it has ended. False when it did not run."""

    def crash(self, name: str, part: str = "") -> None:
        """End a service, or one of the containers that it is made of, without warning; it is started again at once."""

    def kill(self, name: str, part: str = "") -> None:
        """The same, and it stays down until it is started."""

    def state(self, name: str) -> str:
        """``stopped``, ``starting``, ``running``, ``restarting``, ``stopping`` or ``failed``."""

    def left_out(self, name: str) -> str:
        """Why the platform is without this service; empty for one that it has."""

    def how_to_look(self, name: str) -> str:
        """The command that shows a service's own words."""


@cache
def runtime(s: Settings = settings) -> Runtime:
    """The runtime of this process: ``SHUDL_RUNTIME`` says which."""
    if s.docker:
        from include.platform.containers import Containers

        return Containers()
    from include.platform.supervisor import Supervisor

    return Supervisor(s)
