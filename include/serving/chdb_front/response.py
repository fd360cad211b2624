"""One HTTP answer over ASGI."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from include.serving.chdb_front.compression import encoder
from include.serving.chdb_front.engine import Summary

SEND_TIMEOUT_S = 300
MIN_COMPRESSED_BYTES = 1024
MAX_EXCEPTION_BYTES = 16000

_BINARY = ("Native", "RowBinary", "Arrow", "Parquet", "ORC", "Avro", "Protobuf", "CapnProto", "MsgPack", "BSON", "Npy")
_TEXT = {
    "TabSeparated": "text/tab-separated-values",
    "TSV": "text/tab-separated-values",
    "CSV": "text/csv",
    "JSONEachRow": "application/x-ndjson",
    "JSON": "application/json",
    "XML": "application/xml",
}


class Gone(Exception):
    """The client went away, or does not take its answer."""


class Response:
    """One answer. Left unfinished, the connection breaks, and the client sees that the answer is not whole."""

    def __init__(self, send: Callable[[dict], Awaitable[None]], headers: dict[str, str]) -> None:
        self._send, self.headers = send, headers
        self.status = 0
        self.finished = False
        self._tag = secrets.token_hex(8)
        self._coder = encoder("")[1]

    def result(self, output_format: str) -> None:
        """Say that the answer is a result in ``output_format``."""
        kind = next((kind for name, kind in _TEXT.items() if output_format.startswith(name)), "text/plain")
        self.headers["X-ClickHouse-Format"] = output_format
        binary = output_format.startswith(_BINARY)
        self.headers["Content-Type"] = "application/octet-stream" if binary else f"{kind}; charset=UTF-8"

    def summary(self, summary: Summary) -> None:
        self.headers["X-ClickHouse-Summary"] = json.dumps({name: str(value) for name, value in asdict(summary).items()})

    async def whole(self, status: int, body: bytes, accepted_encodings: str = "") -> None:
        """Send an answer that is at hand."""
        self._encode(accepted_encodings if len(body) >= MIN_COMPRESSED_BYTES else "")
        body = await asyncio.to_thread(self._compress_last, body) if len(body) >= MIN_COMPRESSED_BYTES else body
        self.headers["Content-Length"] = str(len(body))
        await self._start(status)
        await self._last(body)

    async def start(self, accepted_encodings: str) -> None:
        """Begin an answer of unknown length; :meth:`piece` and :meth:`end` or :meth:`fail` follow."""
        self._encode(accepted_encodings)
        self.headers["X-ClickHouse-Exception-Tag"] = self._tag
        await self._start(200)

    async def piece(self, data: bytes) -> None:
        if data := await asyncio.to_thread(self._coder.compress, data):
            await self._write({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._last(self._coder.flush())

    async def fail(self, text: bytes) -> None:
        """Say in the answer's body why it ends here, as ClickHouse does since 25.11, and leave it unfinished."""
        text = text[:MAX_EXCEPTION_BYTES]
        mark = b"\r\n__exception__\r\n"
        tag = self._tag.encode()
        await self.piece(mark + tag + b"\r\n" + text + b"\n" + b"%d " % (len(text) + 1) + tag + mark)
        await self._write({"type": "http.response.body", "body": self._coder.flush(), "more_body": True})

    def _encode(self, accepted: str) -> None:
        name, self._coder = encoder(accepted)
        if name:
            self.headers["Content-Encoding"] = name

    def _compress_last(self, body: bytes) -> bytes:
        return self._coder.compress(body) + self._coder.flush()

    async def _start(self, status: int) -> None:
        self.status = status
        headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in self.headers.items()]
        await self._write({"type": "http.response.start", "status": status, "headers": headers})

    async def _last(self, data: bytes) -> None:
        self.finished = True
        await self._write({"type": "http.response.body", "body": data, "more_body": False})

    async def _write(self, message: dict) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(message)
        except (TimeoutError, OSError):
            raise Gone from None
