"""What an HTTP request asks for: who, which query, with which settings, and its body."""

from __future__ import annotations

import base64
import binascii
import hmac
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request

from include.serving.chdb_front.compression import Decoder
from include.serving.chdb_front.engine import Context
from include.serving.chdb_front.errors import AUTHENTICATION_FAILED, BAD_ARGUMENTS, NOT_IMPLEMENTED, ClickHouseError

MAX_QUERY_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20

_NOT_SETTINGS = {
    *("query", "query_id", "database", "default_format", "user", "password", "role", "quota_key", "stacktrace"),
    *("session_id", "session_timeout", "session_check", "close_session"),
    *("compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version"),
}


@dataclass(frozen=True)
class User:
    """The one user of the front."""

    name: str
    password: str

    def check(self, request: Request, params: dict[str, str]) -> None:
        """Raises ClickHouseError (516) unless the request carries this user's name and password."""
        name, password = _credentials(request, params)
        same_name = hmac.compare_digest(name.encode(errors="surrogateescape"), self.name.encode())
        same_password = hmac.compare_digest(password.encode(errors="surrogateescape"), self.password.encode())
        if not (same_name and same_password):
            raise ClickHouseError(
                AUTHENTICATION_FAILED,
                f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
            )


def _credentials(request: Request, params: dict[str, str]) -> tuple[str, str]:
    headers = request.headers
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key", "")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(token.strip(), validate=True).decode(errors="surrogateescape").partition(":")
        except binascii.Error:
            raise ClickHouseError(AUTHENTICATION_FAILED, "Authorization: its Basic token is not base64") from None
        return name, password
    return params.get("user", "default"), params.get("password", "")


def query_params(request: Request) -> dict[str, str]:
    """The parameters in the URL; bytes that are not UTF-8 pass as surrogates."""
    raw = request.scope["query_string"].decode("latin-1")
    return dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))


def has_credentials(request: Request) -> bool:
    """Whether the request says who it comes from, rightly or not."""
    headers = {"authorization", "x-clickhouse-user", "x-clickhouse-key"}
    return bool(headers & set(request.headers)) or "user" in query_params(request)


class Query:
    """One query: its context, and its text followed by its data in :meth:`chunks`."""

    def __init__(self, request: Request, params: dict[str, str]) -> None:
        self._request, self.params = request, params
        for name in ("compress", "decompress"):
            if self.flag(name):
                raise ClickHouseError(NOT_IMPLEMENTED, f"{name}=1 (native compression); use Content-Encoding instead")
        self.method = request.method
        self.query_id = params.get("query_id") or request.headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
        self.default_format = params.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
        if not (self.query_id.isascii() and self.query_id.isprintable()):
            raise ClickHouseError(BAD_ARGUMENTS, "query_id: must be printable ASCII")
        if not self.default_format.isalnum():
            raise ClickHouseError(BAD_ARGUMENTS, f"default_format={self.default_format}: must be the name of a format")
        self.session_id = params.get("session_id", "")
        self.session_timeout = params.get("session_timeout", "")
        self.wait_for_end = self.flag("wait_end_of_query")
        self._has_body = request.method != "GET"
        self._decoder = Decoder(request.headers.get("content-encoding", "").lower())

    def flag(self, name: str) -> bool:
        return self.params.get(name, "0").lower() in ("1", "true")

    @property
    def accepted_encodings(self) -> str:
        on = self.params.get("enable_http_compression", "1").lower() in ("1", "true")
        return self._request.headers.get("accept-encoding", "") if on else ""

    @property
    def context(self) -> Context:
        values = {n: v for n, v in self.params.items() if n not in _NOT_SETTINGS}
        return Context(
            query_id=self.query_id,
            database=self.params.get("database") or self._request.headers.get("x-clickhouse-database", ""),
            settings={n: v for n, v in values.items() if not n.startswith("param_")},
            parameters={n.removeprefix("param_"): v for n, v in values.items() if n.startswith("param_")},
        )

    async def read_form(self) -> None:
        """Take the query and its parameters from a multipart form, if that is what the body is."""
        if not self._request.headers.get("content-type", "").startswith("multipart/form-data"):
            return
        self._has_body = False
        async with self._request.form(max_part_size=MAX_QUERY_BYTES) as form:
            for name, value in form.multi_items():
                if not isinstance(value, str):
                    raise ClickHouseError(NOT_IMPLEMENTED, f"{name}: external table; use a temporary table instead")
                self.params[name] = value

    async def chunks(self) -> AsyncIterator[bytes]:
        """The query in the URL, a newline, and the decoded body, in pieces of about CHUNK_BYTES."""
        head = self.params.get("query", "").encode(errors="surrogateescape")
        parts, size, first = [head], 0, bool(head)
        if self._has_body:
            async for raw in self._request.stream():
                data = self._decoder.feed(raw)
                if data and first:
                    parts, first = [*parts, b"\n"], False
                parts.append(data)
                size += len(data)
                if size >= CHUNK_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
            self._decoder.finish()
        yield b"".join(parts)
