"""Airflow's queue and the workers that take tasks from it (Compose's profile ``ha``), as the queue itself tells."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from include.platform.catalog import service
from include.platform.settings import DOCKER_CA, Settings

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_S = 4


def queue(s: Settings) -> Redis:
    """A client of Valkey."""
    from redis import Redis

    host, port = s.address("valkey")
    tls = {"ssl": True, "ssl_ca_certs": str(DOCKER_CA)}
    return Redis(host, port, password=s.secret("valkey"), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, **tls)


def queue_healthy(s: Settings) -> None:
    """Raises what the client does when Valkey does not answer."""
    with closing(queue(s)) as client:
        client.ping()


def workers_healthy(s: Settings) -> None:
    """Raises RuntimeError when fewer workers are there than there are to be: each listens to what is told to all."""
    with closing(queue(s)) as client:
        there = sum(int(one["psub"]) > 0 for one in client.client_list())
    wanted = len(service("airflow-worker").containers)
    if there < wanted:
        raise RuntimeError(f"{there} of {wanted} workers take tasks")
