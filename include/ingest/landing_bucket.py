"""The landing bucket: what lies in it, and how it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.ingest.deadletters import IngestError
from include.ingest.files_records import CHUNK
from include.lake.catalog import LANDING

AHEAD = 2
"""Chunks that are read before they are asked for."""


@dataclass(frozen=True)
class File:
    """A file in the bucket, as it is now: ``path`` is ``<folder>/<file>``, ``etag`` tells whether it is another."""

    path: str
    etag: str
    size: int
    modified: datetime

    @property
    def folder(self) -> str:
        """Empty for a file that lies in no folder."""
        return self.path.partition("/")[0] if "/" in self.path else ""


def listing(s3: Any, prefix: str = "") -> list[File]:
    """All files below ``prefix``, oldest first."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=LANDING, Prefix=prefix)
    found = [
        File(item["Key"], item["ETag"].strip('"'), item["Size"], item["LastModified"])
        for page in pages
        for item in page.get("Contents", [])
        if not item["Key"].endswith("/")
    ]
    return sorted(found, key=lambda file: (file.modified, file.path))


def chunks(s3: Any, file: File) -> Iterator[bytes]:
    """The file's bytes. Raises :class:`IngestError` when it is another by now; then it is for the next run."""
    answer = s3.get_object(Bucket=LANDING, Key=file.path)
    if answer["ETag"].strip('"') != file.etag:
        answer["Body"].close()
        raise IngestError(f"{file.path} was put there again while it was read; the next run takes it")
    with answer["Body"] as body:
        yield from _ahead(iter(lambda: body.read(CHUNK), b""))


def _ahead(items: Iterable[bytes]) -> Iterator[bytes]:
    """``items``, read by a thread of their own."""
    source = iter(items)
    with ThreadPoolExecutor(1) as reader:
        waiting = deque(reader.submit(next, source, b"") for _ in range(AHEAD))
        while item := waiting.popleft().result():
            waiting.append(reader.submit(next, source, b""))
            yield item
