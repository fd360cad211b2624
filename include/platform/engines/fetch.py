"""Brings everything that is not as locked to what the locks say: environments, downloads and unpacking at once."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from include.platform.engines import envs, jars, layout, state
from include.platform.engines.errors import Cancelled, EngineError
from include.platform.engines.jars import Artifact
from include.platform.engines.places import places
from include.platform.engines.progress import Progress, Row


def locked(engine: str) -> list[Artifact]:
    """The engine's artifacts as locked; raises :class:`EngineError` when the lock has none."""
    found = state.jars_lock().get(engine)
    if not found:
        raise EngineError(f"{state.JARS_LOCK.name} has no {engine}: run `make lock`.")
    return [Artifact.parse(coordinate, **entry) for coordinate, entry in found.items()]


def fetch(lock_fd: int) -> None:
    """Installs what is missing or not as locked. Ended anywhere, the next call goes on.

    The caller holds the installation lock, open as ``lock_fd``. Raises :class:`EngineError` for the first thing that
    fails, once everything else has stopped.
    """
    began = time.monotonic()
    with Progress() as progress, _Pools() as pools:
        try:
            making = {
                env: pools.envs.submit(envs.install, env, progress.row(f"env {env}"), lock_fd)
                for env in state.stale_envs()
            }
            building = []
            for engine in state.stale_engines():
                row, artifacts = progress.row(engine), locked(engine)
                row.start("downloading", sum(artifact.size for artifact in artifacts))
                files = [pools.network.submit(jars.fetch, artifact, row) for artifact in artifacts]
                needed = [making[env] for env in state.ENGINE_ENVS[engine] if env in making]
                building.append(pools.engines.submit(_build, engine, row, files, needed))
            _join([*making.values(), *building])
            layout.make_links()
        except BaseException:
            progress.cancel()
            pools.cancel()
            raise
    shutil.rmtree(places.installed / "tmp", ignore_errors=True)
    took = time.monotonic() - began
    progress.console.print(f"All environments and engines are installed ({took:.0f} s)", highlight=False)


class _Pools(ExitStack):
    """Threads for each kind of work; those of engines mostly wait for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.envs, self.network, self.engines = self.all = [
            self.enter_context(ThreadPoolExecutor(workers)) for workers in (3, 4, 8)
        ]

    def cancel(self) -> None:
        for pool in self.all:
            pool.shutdown(wait=False, cancel_futures=True)


def _build(engine: str, row: Row, files: list[Future[Path]], needed: list[Future[None]]) -> None:
    paths = [file.result() for file in files]
    row.note("waiting for its environment" if needed else "")
    for env in needed:
        env.result()
    layout.build(engine, paths, row)
    row.finish(f"{len(paths)} file{'s' * (len(paths) > 1)}")


def _join(futures: list[Future[None]]) -> None:
    """Waits for all; raises the first error that is not the consequence of another."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    errors = [error for future in done if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, (Cancelled, CancelledError))):
        raise error
