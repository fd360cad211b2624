"""Serve the engine. See the package."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import ssl
import sys
import threading
from pathlib import Path
from types import FrameType

STOP_TIMEOUT_S = 15


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chdb_front", description="ClickHouse's HTTP interface over the chdb engine")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--path", required=True, type=Path, help="the data folder; one process at a time")
    parser.add_argument("--config-file", type=Path, help="ClickHouse configuration: named collections, cache sizes, …")
    return parser.parse_args()


def _environment(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        sys.exit(f"chdb_front: {name} must be set")
    return value


def _certificate() -> dict[str, str]:
    """What uvicorn needs to speak TLS; nothing where no certificate is given."""
    if not os.environ.get("TLS_CERT_FILE"):
        return {}
    files = {"ssl_certfile": _environment("TLS_CERT_FILE"), "ssl_keyfile": _environment("TLS_KEY_FILE")}
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*files.values())
    except OSError as error:
        named = ", ".join(f"{name}={os.environ[name]}" for name in ("TLS_CERT_FILE", "TLS_KEY_FILE"))
        sys.exit(f"chdb_front: {named}: not a certificate and its key: {error}")
    return files


def _give_up() -> None:
    logging.getLogger("chdb_front").error("a query did not stop within %d s; what it wrote may be incomplete", STOP_TIMEOUT_S)
    logging.shutdown()
    os._exit(1)


def main() -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop."""
    args = _arguments()
    user = _environment("CLICKHOUSE_USER")
    password = Path(_environment("CLICKHOUSE_PASSWORD_FILE")).read_text().strip()
    if not password:
        sys.exit(f"chdb_front: CLICKHOUSE_PASSWORD_FILE={os.environ['CLICKHOUSE_PASSWORD_FILE']} is empty")
    memory_bytes = int(_environment("CLICKHOUSE_MEMORY_BYTES"))
    certificate = _certificate()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    os.environ["TZ"] = "UTC"  # the engine takes its time zone from here, not from its configuration

    import uvicorn

    from include.serving.chdb_front.app import Front
    from include.serving.chdb_front.engine import Engine
    from include.serving.chdb_front.request import User

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Stop, or end the process when that takes too long."""
            deadline = threading.Timer(STOP_TIMEOUT_S, _give_up)
            deadline.daemon = True
            deadline.start()
            super().handle_exit(sig, frame)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        engine = Engine(args.path, args.config_file, memory_bytes)
    except RuntimeError as error:
        sys.exit(f"chdb_front: {error}")
    spool = args.path / "tmp"
    spool.mkdir(exist_ok=True)
    front = Front(engine, User(user, password), str(spool))
    config = uvicorn.Config(
        front,
        host=args.host,
        port=args.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=3,
        **certificate,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again once it has stopped
    scheme = "https" if certificate else "http"
    logging.getLogger("chdb_front").info("ClickHouse %s at %s://%s:%d", engine.version, scheme, args.host, args.port)
    asyncio.run(Server(config).serve())
    front.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
