"""The HTTP interface: from a request to the engine and back, in bounded memory whatever the size of the data."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request

from include.serving.chdb_front import engine as ch
from include.serving.chdb_front import sql
from include.serving.chdb_front.errors import (
    AUTHENTICATION_FAILED,
    LOGICAL_ERROR,
    QUERY_IS_TOO_LARGE,
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
    READONLY,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    ClickHouseError,
)
from include.serving.chdb_front.request import CHUNK_BYTES, MAX_QUERY_BYTES, Query, User, has_credentials, query_params
from include.serving.chdb_front.response import Gone, Response
from include.serving.chdb_front.sessions import Sessions

log = logging.getLogger("chdb_front")

MAX_QUERIES = 32
QUEUE_TIMEOUT_S = 60
SPOOL_BYTES = 8 << 20

Last = Callable[[], Awaitable[None]]
"""What sends the end of an answer."""


@dataclass
class _Entry:
    """One line of the access log. It never holds a query's text: that may carry credentials."""

    query_id: str = "-"
    error: str = "-"
    summary: ch.Summary = field(default_factory=ch.Summary)
    started: float = field(default_factory=time.monotonic)


@dataclass
class _Job:
    """One query on its way through the engine."""

    query: Query
    request: Request
    response: Response
    entry: _Entry
    connection: Any = None
    in_session: bool = False


class Front:
    """The ASGI application over one engine."""

    def __init__(self, engine: ch.Engine, user: User, spool_dir: str) -> None:
        self._engine, self._user, self._spool_dir = engine, user, spool_dir
        self._sessions = Sessions(engine.connect)
        self._workers = ThreadPoolExecutor(MAX_QUERIES, thread_name_prefix="query")
        self._free = asyncio.Semaphore(MAX_QUERIES)
        self._running: set[str] = set()

    def close(self) -> None:
        """Stop what runs, however long it takes, then the engine."""
        while self._running:
            for query_id in list(self._running):
                self._engine.kill_query(query_id)
            time.sleep(0.1)
        self._workers.shutdown()
        self._sessions.close_all()
        self._engine.close()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = Response(send, {"X-ClickHouse-Server-Display-Name": "chdb", "X-ClickHouse-Timezone": self._engine.timezone})
        if scope["path"] in ("/ping", "/replicas_status"):
            return await response.whole(200, b"Ok.\n")
        if scope["path"] != "/" or request.method not in ("GET", "POST"):
            return await response.whole(404, b"There is no such handle; queries go to GET / and POST /\n")
        entry = _Entry()
        try:
            await self._answer(request, response, entry)
        except (Gone, ClientDisconnect):
            entry.error = "client-gone"
        except Exception as error:  # whatever failed, the client gets a ClickHouse exception
            failure = error if isinstance(error, ClickHouseError) else _unexpected(error)
            entry.error = str(failure.code)
            with suppress(Gone):
                await self._refuse(request, response, failure)
        duration_ms = (time.monotonic() - entry.started) * 1000
        log.info(
            "%s query_id=%s status=%d error=%s ms=%d read_rows=%d written_rows=%d",
            *(request.method, entry.query_id, response.status, entry.error, duration_ms),
            *(entry.summary.read_rows, entry.summary.written_rows),
        )

    async def _refuse(self, request: Request, response: Response, failure: ClickHouseError) -> None:
        text = f"{failure} (version {self._engine.version})\n".encode(errors="surrogateescape")
        if response.status:
            return None if response.finished else await response.fail(text)
        status = failure.status
        if failure.code == AUTHENTICATION_FAILED[0] and not has_credentials(request):
            status = 401
            response.headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        response.headers |= {"X-ClickHouse-Exception-Code": str(failure.code), "Content-Type": "text/plain; charset=UTF-8"}
        await response.whole(status, text)

    async def _answer(self, request: Request, response: Response, entry: _Entry) -> None:
        params = query_params(request)
        if request.method == "GET" and not params.get("query"):
            return await response.whole(200, b"Ok.\n")
        self._user.check(request, params)
        query = Query(request, params)
        entry.query_id = response.headers["X-ClickHouse-Query-Id"] = query.query_id
        await query.read_form()
        body = query.chunks()
        head, insert = await _head(body)
        kind = None if insert else await asyncio.to_thread(self._engine.kind, head)
        if query.method == "GET" and (kind is None or (kind.known and not kind.read_only)):
            raise ClickHouseError(READONLY, "Cannot execute query in readonly mode: the method GET only reads; use POST")
        async with self._admitted(_Job(query, request, response, entry)) as job:
            if insert:
                last = await self._insert(job, insert, head, body)
            elif kind.streams:
                last = await self._read(job, head)
            else:
                last = await self._run(job, head)
        await last()  # only now: a client that has its whole answer may use its session and query id again

    @asynccontextmanager
    async def _admitted(self, job: _Job) -> AsyncIterator[_Job]:
        """``job`` with a connection, within the front's bounds. Ends when the engine has let go of the connection."""
        query, session = job.query, None
        self._sessions.expire()
        if query.query_id in self._running:
            raise ClickHouseError(QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, f"Query with id = {query.query_id} is already running.")
        if query.session_id:
            session = self._sessions.acquire(query.session_id, query.session_timeout, query.flag("session_check"))
        self._running.add(query.query_id)
        try:
            await self._queue()
            try:
                job.connection, job.in_session = (session.connection, True) if session else (self._engine.connect(), False)
                yield job
            finally:
                self._free.release()
        finally:
            self._running.discard(query.query_id)
            if session:
                self._sessions.release(query.session_id, close=query.flag("close_session"))
            elif job.connection:
                job.connection.close()

    async def _queue(self) -> None:
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT_S):
                await self._free.acquire()
        except TimeoutError:
            text = f"No query ended within {QUEUE_TIMEOUT_S} s; at most {MAX_QUERIES} run at a time"
            raise ClickHouseError(TOO_MANY_SIMULTANEOUS_QUERIES, text) from None

    async def _work(self, function: Callable, job: _Job, *args: Any) -> Any:
        """``function`` in a worker thread. Cancelled, it still waits for the thread, which uses the connection."""
        call = (function, job.connection, *args, job.query.context, job.in_session)
        future = asyncio.get_running_loop().run_in_executor(self._workers, *call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.gather(future, return_exceptions=True)
            raise

    async def _run(self, job: _Job, text: bytes) -> Last:
        result, job.entry.summary = await self._work(ch.run, job, text, job.query.default_format)
        if result:
            job.response.result(sql.output_format(text, job.query.default_format))
        job.response.summary(job.entry.summary)
        return partial(job.response.whole, 200, result, job.query.accepted_encodings)

    async def _insert(self, job: _Job, found: sql.Insert, head: bytes, body: AsyncIterator[bytes]) -> Last:
        loop = asyncio.get_running_loop()

        def chunks() -> Iterator[bytes]:
            yield head[found.data_start :]
            while chunk := asyncio.run_coroutine_threadsafe(anext(body, b""), loop).result():
                yield chunk

        job.entry.summary = await self._work(ch.insert, job, found.statement, found.format, chunks())
        job.response.summary(job.entry.summary)
        return partial(job.response.whole, 200, b"")

    async def _read(self, job: _Job, text: bytes) -> Last:
        """Run a reading query and send its result; a client that goes away ends the query."""
        sending = asyncio.create_task(self._stream(job, text))
        gone = asyncio.create_task(_disconnected(job.request))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise Gone
            return await sending
        finally:
            for task in (sending, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _stream(self, job: _Job, text: bytes) -> Last:
        """Let the engine write the result, in any of its formats, into a pipe, and send what comes out of that."""
        source, sink = os.pipe()

        def produce(connection: Any, *call: Any) -> ch.Summary:
            try:
                statement, output_format = sql.to_outfile(text, f"/dev/fd/{sink}", job.query.default_format)
                job.response.result(output_format)
                return ch.read(connection, statement, *call)
            finally:
                os.close(sink)  # held open until here: the pipe must not end before the engine has opened it

        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0))
        query = asyncio.create_task(self._work(produce, job))
        try:
            with tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=self._spool_dir) as spool:
                while (job.query.wait_for_end or spool.tell() < CHUNK_BYTES) and (piece := await reader.read(CHUNK_BYTES)):
                    spool.write(piece)
                if reader.at_eof():
                    job.entry.summary = await query
                    job.response.summary(job.entry.summary)
                size = spool.tell()
                spool.seek(0)
                if reader.at_eof() and size <= CHUNK_BYTES:
                    return partial(job.response.whole, 200, spool.read(), job.query.accepted_encodings)
                await job.response.start(job.query.accepted_encodings)
                while piece := spool.read(CHUNK_BYTES):
                    await job.response.piece(piece)
            while piece := await reader.read(CHUNK_BYTES):
                await job.response.piece(piece)
            job.entry.summary = await query
            return job.response.end
        finally:
            pipe.close()
            while not query.done():
                await asyncio.to_thread(self._engine.kill_query, job.query.query_id)
                await asyncio.wait([query], timeout=0.5)
            await asyncio.gather(query, return_exceptions=True)


def _unexpected(error: Exception) -> ClickHouseError:
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s at\n%s", type(error).__name__, frames)  # not its text, which may hold the query's
    return ClickHouseError(LOGICAL_ERROR, f"{type(error).__name__} in the HTTP front; its log tells where")


async def _head(body: AsyncIterator[bytes]) -> tuple[bytes, sql.Insert | None]:
    """The query's text, or the beginning of an INSERT with data, whose rest stays in ``body``."""
    head = b""
    async for chunk in body:
        head += chunk
        if found := sql.insert_with_data(head, complete=False):
            return head, found
        if len(head) > MAX_QUERY_BYTES:
            raise ClickHouseError(QUERY_IS_TOO_LARGE, f"The query's text is longer than {MAX_QUERY_BYTES} bytes")
    return head, sql.insert_with_data(head, complete=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
