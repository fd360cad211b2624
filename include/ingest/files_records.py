"""Bytes of a file in the landing bucket, cut into whole records, each with the line it begins in.

Everything streams: no more is in memory than a block and the longest record that is allowed.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

CHUNK = 8 << 20
"""Bytes that are read, and made into a block, at a time."""
RAW_KEPT = 64 << 10
"""Bytes that a dead letter keeps of a line that is too long."""
QUOTE, LF, CR = b'"\n\r'


class FileError(ValueError):
    """A file that cannot be read at all; the text says why and the way out."""


@dataclass(frozen=True)
class Dead:
    """A record that cannot become a row."""

    line: int
    raw: bytes
    reason: str


@dataclass(frozen=True)
class Block:
    """Whole records, one after the other. Empty lines are between them, but are no records.

    ``starts`` and ``ends`` are the records' places in ``data``, ``lines`` the lines in which they begin, from 1.
    """

    data: bytes
    starts: np.ndarray = field(repr=False)
    ends: np.ndarray = field(repr=False)
    lines: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.starts)

    def slice(self, low: int, high: int) -> memoryview:
        """The records ``low`` to ``high``, the latter not included."""
        return memoryview(self.data)[self.starts[low] : self.ends[high - 1]]

    def raw(self, index: int) -> bytes:
        """A record without the end of its line."""
        return bytes(self.slice(index, index + 1)).rstrip(b"\r\n")


def unzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What was compressed by gzip, in chunks that are no larger than :data:`CHUNK`. Raises :class:`FileError`."""
    reader, fed = zlib.decompressobj(31), False
    for chunk in chunks:
        while chunk:
            fed = True
            try:
                yield reader.decompress(chunk, CHUNK)
            except zlib.error as error:
                raise FileError(f"is no whole gzip file ({error}); put it there again") from None
            chunk = reader.unconsumed_tail
            if reader.eof:
                chunk, reader, fed = reader.unused_data.lstrip(b"\0"), zlib.decompressobj(31), False
    while fed and not reader.eof:
        more = reader.decompress(b"", CHUNK)
        if not more:
            raise FileError("is a gzip file that breaks off in the middle; put it there again")
        yield more


def utf8(chunks: Iterable[bytes], encoding: str = "") -> Iterator[bytes]:
    """``chunks`` without a byte order mark, and as UTF-8 where the mark or ``encoding`` says UTF-16 or UTF-32.

    Other encodings have ASCII's line ends and are decoded record by record. Raises :class:`FileError`.
    """
    chunks = iter(chunks)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 4:
            break
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) if encoding else False
    if head.startswith(codecs.BOM_UTF8):
        head = head[3:]
    elif head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        wide, encoding = True, "utf-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        wide, encoding = True, "utf-16"
    if not wide:
        yield head
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        yield decoder.decode(head).encode()
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise FileError(f"is not {encoding}: {error}; set encoding in the folder's pipeline file") from None


def old_mac(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """``chunks`` with line feeds where a file ends its lines with carriage returns only."""
    chunks = iter(chunks)
    first = next(chunks, b"")
    if b"\r" not in first[:-1] or b"\n" in first:
        yield first
        yield from chunks
        return
    yield first.replace(b"\r", b"\n")
    for chunk in chunks:
        yield chunk.replace(b"\r", b"\n")


def _record_ends(data: bytes, delimiter: int | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """All line feeds in ``data``, which of them end a record, and whether a quote is open at the end.

    A quote opens a value only where the value begins, as in every reader of CSV. No delimiter: nothing is quoted.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    feeds = np.flatnonzero(bytes_ == LF)
    if delimiter is None or QUOTE not in data:
        return feeds, feeds, False
    quotes = np.flatnonzero(bytes_ == QUOTE)
    before = bytes_[quotes[0::2] - 1]
    if quotes[0] == 0:
        before[0] = LF
    closing = quotes[1::2]
    after = bytes_[np.minimum(closing + 1, len(bytes_) - 1)]
    if np.isin(before, (delimiter, LF, CR, QUOTE)).all() and np.isin(after, (delimiter, LF, CR, QUOTE)).all():
        inside = np.searchsorted(quotes, feeds) % 2 == 1
        return feeds, feeds[~inside], len(quotes) % 2 == 1
    edges, is_open = _quoted(bytes_, quotes.tolist(), delimiter)
    inside = np.searchsorted(np.array(edges, np.int64), feeds) % 2 == 1
    return feeds, feeds[~inside], is_open


def _quoted(bytes_: np.ndarray, quotes: list[int], delimiter: int) -> tuple[list[int], bool]:
    """Where quoted values begin and end, in turn, and whether the last one is open."""
    edges: list[int] = []
    is_open, index = False, 0
    while index < len(quotes):
        here = quotes[index]
        if not is_open:
            is_open = here == 0 or bytes_[here - 1] in (delimiter, LF, CR)
            if is_open:
                edges.append(here)
        elif index + 1 < len(quotes) and quotes[index + 1] == here + 1:
            index += 1
        else:
            is_open = False
            edges.append(here)
        index += 1
    return edges, is_open


def _block(data: bytes, feeds: np.ndarray, ends: np.ndarray, line: int) -> Block:
    ends = ends + 1
    if not len(ends) or ends[-1] != len(data):
        ends = np.append(ends, len(data))
    starts = np.concatenate(([0], ends[:-1]))
    lines = line + (np.arange(len(starts)) if len(feeds) == len(starts) else np.searchsorted(feeds, starts))
    lengths = ends - starts
    if lengths.min(initial=3) < 3:
        bytes_ = np.frombuffer(data, np.uint8)
        first = bytes_[starts]
        empty = ((lengths == 1) & ((first == LF) | (first == CR))) | ((lengths == 2) & (first == CR) & (bytes_[ends - 1] == LF))
        starts, ends, lines = starts[~empty], ends[~empty], lines[~empty]
    return Block(data, starts, ends, lines)


def blocks(chunks: Iterable[bytes], delimiter: str | None, longest: int, line: int = 1) -> Iterator[Block | Dead]:
    """The records of a file whose first line is ``line``.

    A record longer than ``longest`` bytes is dead; where it is so long because a quote is never closed, only its first line
    is, and the next line begins anew.
    """
    separator = ord(delimiter) if delimiter else None
    rest, skipping = b"", False
    for chunk in _and_the_end(chunks):
        if chunk is not None and skipping:
            place = chunk.find(b"\n")
            if place < 0:
                continue
            chunk, skipping, line = chunk[place + 1 :], False, line + 1
        rest = rest + chunk if chunk is not None else rest
        while rest:
            feeds, ends, is_open = _record_ends(rest, separator)
            if chunk is None and not is_open:
                yield _block(rest, feeds, ends, line)
                return
            if len(ends):
                cut = int(ends[-1]) + 1
                inside = feeds[: np.searchsorted(feeds, cut)]
                yield _block(rest[:cut], inside, ends, line)
                rest, line = rest[cut:], line + len(inside)
            elif chunk is None or len(rest) > longest:
                place = rest.find(b"\n")
                if place < 0 and is_open and chunk is None:
                    place = len(rest)
                if place < 0 or place > longest:
                    yield Dead(line, rest[:RAW_KEPT], f"the line is longer than {longest >> 20} MiB; raise longest_line_mb")
                    skipping = place < 0
                    rest = b"" if skipping else rest[place + 1 :]
                    line += not skipping
                    continue
                yield Dead(line, rest[:place].rstrip(b"\r"), "a quote is opened and never closed")
                rest, line = rest[place + 1 :], line + 1
            else:
                break


def _and_the_end(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None
