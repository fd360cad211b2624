"""A web server of a test's own that answers in JSON."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answers(BaseHTTPRequestHandler):
    """What a test's handler is made of: it says nothing, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def answer(self, body: Any, status: int = 200) -> None:
        """``body`` as JSON, unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def serve(handler: type[Answers]) -> ThreadingHTTPServer:
    """A server on a free port of 127.0.0.1 that answers from now on; the caller shuts it down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
