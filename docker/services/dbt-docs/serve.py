"""Makes dbt's documentation of the project and serves it: one page, read only, over HTTPS when TLS_CERT_FILE is set.

The first page is made from the project's manifest alone, so that there is one before Trino answers; then Trino is asked for
what the tables hold, and again every DBT_DOCS_REFRESH_S seconds, sooner while it does not answer.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from include.platform.endpoints import Endpoint
from include.platform.settings import settings
from include.serving.dbt import MANIFEST, PARTIAL_PARSE, PROJECT, environment, executable, folder

PAGE = "static_index.html"
TARGET = "trino"
TIMEOUT_S = 600
RETRY_S = 60


class Pages:
    """The page as it was last made."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.page = b""

    def make(self, *, with_catalog: bool) -> str:
        """Make the page; what went wrong, or an empty text. The last page stays when this one fails."""
        target = self._work / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in (MANIFEST, PARTIAL_PARSE):
            shutil.copyfile(folder(TARGET) / name, target / name)
        command = [str(executable()), "--quiet", "docs", "generate", "--static", "--target", TARGET]
        command += ["--profiles-dir", str(PROJECT), "--target-path", str(target)]
        if not with_catalog:
            command += ["--empty-catalog", "--no-compile"]
        env = {**os.environ, **_environment(), "DBT_LOG_PATH": str(self._work / "logs")}
        try:
            done = subprocess.run(command, cwd=PROJECT, env=env, text=True, capture_output=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"dbt docs generate was not done after {TIMEOUT_S} s"
        if done.returncode:
            return f"dbt docs generate failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        self.page = (target / PAGE).read_bytes()
        return ""

    def keep_making(self, refresh_s: float) -> None:
        """Make the page again and again, telling once what is wrong."""
        told = ""
        while True:
            wrong = self.make(with_catalog=True)
            if wrong != told:
                print(wrong or "the page is made, with what the tables hold", flush=True)
                told = wrong
            time.sleep(min(RETRY_S, refresh_s) if wrong else refresh_s)


def _environment() -> dict[str, str]:
    trino = Endpoint(
        "shudl_trino",
        "trino",
        os.environ["TRINO_HOST"],
        int(os.environ["TRINO_PORT"]),
        login=os.environ["TRINO_USER"],
        password=Path(os.environ["TRINO_PASSWORD_FILE"]).read_text().strip(),
        extra={"scheme": "https" if os.environ.get("TLS_CA_FILE") else "http"},
    )
    return environment({"shudl_trino": trino, "shudl_clickhouse": Endpoint("shudl_clickhouse", "generic", "clickhouse", 8123)})


def handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30
        server_version = "dbt-docs"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            if self.path.split("?")[0] not in ("/", "/index.html"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            page = pages.page
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            if body:
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that goes away, or speaks no TLS, is not our error."""


def server(pages: Pages, bind: str, port: int) -> Server:
    """What serves the page at ``port``; over TLS when TLS_CERT_FILE is set."""
    made = Server((bind, port), handler(pages))
    if certificate := os.environ.get("TLS_CERT_FILE"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, os.environ["TLS_KEY_FILE"])
        # Each client's handshake is done in its own thread: one that is slow stops nobody.
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    return made


def main() -> None:
    refresh_s = float(os.environ.get("DBT_DOCS_REFRESH_S") or 1800)
    pages = Pages(settings.home / "dbt-docs")
    if wrong := pages.make(with_catalog=False):
        sys.exit(wrong)
    threading.Thread(target=pages.keep_making, args=(refresh_s,), daemon=True).start()
    server(pages, os.environ.get("DBT_DOCS_BIND") or "0.0.0.0", int(os.environ["DBT_DOCS_PORT"])).serve_forever()


if __name__ == "__main__":
    main()
