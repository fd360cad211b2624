"""Read each DAG file in a process that may neither write, connect nor start programs; print what came of it as JSON.

Usage: ``python probe.py DAGS_FOLDER PLUGINS_FOLDER``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

FORBIDDEN = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "sqlite3.connect"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("tempfile.mkstemp", "tempfile.mkdtemp"),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(seen: list[str]) -> None:
    """Refuse I/O from now on, and note it in ``seen``."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & WRITES) or path == os.devnull:
                return
        elif event not in FORBIDDEN:
            return
        seen.append(f"{event} {args}")
        raise PermissionError(f"I/O while a DAG file is read: {event} {args}")

    sys.addaudithook(hook)


def read(file: str, pipe: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    io: list[str] = []
    watch(io)
    started = time.process_time()
    bag = DagBag(file)
    cpu_s = time.process_time() - started
    pipe.send(
        {
            "cpu_s": cpu_s,
            "io": io,
            "errors": list(bag.import_errors.values()),
            "dags": {
                dag.dag_id: {
                    "tags": sorted(dag.tags),
                    "doc_md": dag.doc_md,
                    "description": dag.description,
                    "serialized_bytes": len(json.dumps(DagSerialization.to_dict(dag))),
                    "tasks": {
                        task.task_id: {"upstream": sorted(task.upstream_task_ids), "rule": task.trigger_rule}
                        for task in dag.tasks
                    },
                }
                for dag in bag.dags.values()
            },
        }
    )


def main() -> None:
    dags, plugins = sys.argv[1:]
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"], os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = dags, plugins
    sys.dont_write_bytecode = True
    import airflow.dag_processing.dagbag
    import airflow.serialization.serialized_objects  # noqa: F401

    found = {}
    context = multiprocessing.get_context("fork")
    for file in sorted(Path(dags).glob("*.py")):
        ours, theirs = context.Pipe()
        process = context.Process(target=read, args=(str(file), theirs))
        process.start()
        theirs.close()
        try:
            found[file.name] = ours.recv()
        except EOFError:
            found[file.name] = {"cpu_s": 0, "io": [], "errors": ["the process that read the file died"], "dags": {}}
        process.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
