"""Clients of Flink: the SQL gateway (statements) and the job manager (jobs).

REST references: Flink's SQL gateway API v3 and job manager API v1.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx


class FlinkError(RuntimeError):
    """A statement or a job failed; the text is the engine's own first cause."""


BARE = re.compile(
    r"null|This server does not host this topic-partition\.|connect(ion)? (refused|reset|timed out).*|broken pipe|"
    r"(read )?timed out|.{0,12}",
    re.I,
)
"""Innermost messages that say nothing without what was being done."""
WRAPPER = re.compile(
    r"Could not forward element to next operator|Tolerance exceeded in error handler|Global failure triggered by|"
    r"Recovery is suppressed|Failed to deserialize consumer record|Unrecoverable exception|.*Exception: "
)
"""Messages of layers that only pass a failure on."""
LONGEST_CAUSE = 600


def first_cause(text: str) -> str:
    """The innermost cause in a Java stack trace, one line; with what was being done where it says little by itself.

    Of Kafka Connect's list of what is wrong with a configuration: all of its items.
    """
    if listed := re.match(r"Connector configuration is invalid and contains[^\n]*\n(.*?)\n?(You can also find|\Z)", text, re.S):
        items = [line.removeprefix("Error while validating connector config: ") for line in listed[1].splitlines()]
        return "; ".join(items)[:LONGEST_CAUSE]
    lines = [line for line in text.splitlines() if line.strip()]
    chain = [line.strip() for line in lines[:1]]
    chain += [line.removeprefix("Caused by: ").strip() for line in lines if line.startswith("Caused by: ")]
    if not chain:
        return "no reason given"
    kind, message = _split(chain[-1])
    if BARE.fullmatch(message):
        outer = (_split(line)[1].rstrip(" :.") for line in reversed(chain[:-1]))
        doing = next((said for said in outer if said and not WRAPPER.match(said) and not BARE.fullmatch(said)), "")
        message = ": ".join(part for part in (doing, message if message not in ("", "null") else kind) if part)
    elif kind:
        message = f"{kind}: {message}"
    return message[:LONGEST_CAUSE]


def _split(line: str) -> tuple[str, str]:
    """``org.postgresql.util.PSQLException: FATAL: …`` → ``("PSQLException", "FATAL: …")``."""
    found = re.match(r"(?:[\w$-]+\.)+([\w$]+)(?::\s*|$)(.*)", line)
    return (found[1].rpartition("$")[2], found[2].strip()) if found else ("", line)


@dataclass(frozen=True)
class Result:
    """What a statement returned; ``job_id`` is set for statements that submit a job."""

    columns: list[str]
    rows: list[list[Any]]
    job_id: str | None = None


class SqlGateway:
    """One session of the SQL gateway at ``url``; a context manager."""

    def __init__(self, url: str, properties: Mapping[str, str] | None = None, timeout_s: float = 60) -> None:
        self._http = httpx.Client(base_url=f"{url}/v3", timeout=timeout_s)
        self._properties = dict(properties or {})
        self._session = ""

    def __enter__(self) -> SqlGateway:
        answer = self._http.post("/sessions", json={"properties": self._properties})
        self._session = _checked(answer)["sessionHandle"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._http.delete(f"/sessions/{self._session}")
        except httpx.HTTPError:
            pass  # the gateway drops idle sessions by itself
        self._http.close()

    def execute(self, sql: str, timeout_s: float = 60) -> Result:
        """Run one statement and read its whole result. Raises :class:`FlinkError`, also when time runs out."""
        base = f"/sessions/{self._session}/operations"
        answer = self._http.post(f"/sessions/{self._session}/statements", json={"statement": sql})
        operation = _checked(answer)["operationHandle"]
        deadline = time.monotonic() + timeout_s
        columns: list[str] = []
        rows: list[list[Any]] = []
        job_id = None
        page = f"/sessions/{self._session}/operations/{operation}/result/0?rowFormat=JSON"
        while True:
            body = _checked(self._http.get(page))
            job_id = body.get("jobID") or job_id
            if body["resultType"] == "NOT_READY":
                if time.monotonic() > deadline:
                    self._http.post(f"{base}/{operation}/cancel")
                    raise FlinkError(f"no result within {timeout_s:.0f} s")
                time.sleep(0.1)
                continue
            results = body["results"]
            columns = [column["name"] for column in results["columns"]]
            rows += [row["fields"] for row in results["data"] if row["kind"] in ("INSERT", "UPDATE_AFTER")]
            if body["resultType"] == "EOS":
                return Result(columns, rows, job_id)
            page = body["nextResultUri"].removeprefix("/v3")
            if time.monotonic() > deadline:
                self._http.post(f"{base}/{operation}/cancel")
                raise FlinkError(f"no end of the result within {timeout_s:.0f} s")


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        return answer.json()
    try:
        errors = answer.json()["errors"]
    except (ValueError, KeyError):
        errors = [answer.text]
    raise FlinkError(first_cause(errors[-1]))


class JobManager:
    """The job manager's REST API at ``url``."""

    def __init__(self, url: str, timeout_s: float = 10) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s)

    def get(self, path: str) -> dict[str, Any]:
        return _checked(self._http.get(path))

    def overview(self) -> dict[str, Any]:
        """Slots, task managers and counts of jobs."""
        return self.get("/overview")

    def jobs(self) -> list[dict[str, Any]]:
        """Every job the job manager remembers: ``jid, name, state, start-time``."""
        return self.get("/jobs/overview")["jobs"]

    def failure(self, job_id: str) -> str:
        """The first cause of the job's latest failure, one line; empty when it never failed."""
        history = self.get(f"/jobs/{job_id}/exceptions?maxExceptions=1").get("exceptionHistory", {}).get("entries", [])
        return first_cause(history[0]["stacktrace"]) if history else ""

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/jobs/{job_id}/checkpoints")

    def cancel(self, job_id: str) -> None:
        answer = self._http.patch(f"/jobs/{job_id}?mode=cancel")
        if answer.status_code not in (200, 202, 404, 409):
            _checked(answer)
