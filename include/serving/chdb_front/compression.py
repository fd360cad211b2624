"""The content encodings of requests and answers: lz4 frames, zstd, gzip and deflate."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame
import zstandard

from include.serving.chdb_front.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, ClickHouseError

_DECODERS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "deflate": zlib.decompressobj,
}


class Decoder:
    """Undoes one Content-Encoding of a request, piece by piece; frames may follow one another."""

    def __init__(self, encoding: str) -> None:
        if encoding not in ("", "identity") and encoding not in _DECODERS:
            text = f"Content-Encoding {encoding}: must be one of {', '.join(_DECODERS)}"
            raise ClickHouseError(UNKNOWN_COMPRESSION_METHOD, text)
        self._new = _DECODERS.get(encoding)
        self._frame: Any = self._new() if self._new else None
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes of ``data``. Raises ClickHouseError when it cannot be decoded."""
        if not self._new:
            return data
        out = []
        try:
            while data:
                if self._frame.eof:
                    self._frame = self._new()
                self._started = True
                out.append(self._frame.decompress(data))
                data = self._frame.unused_data if self._frame.eof else b""
        except (RuntimeError, zstandard.ZstdError, zlib.error) as error:
            raise ClickHouseError(CANNOT_DECOMPRESS, f"The request's body cannot be decompressed: {error}") from None
        return b"".join(out)

    def finish(self) -> None:
        """Raises ClickHouseError when the last frame was cut short."""
        if self._started and not self._frame.eof:
            raise ClickHouseError(CANNOT_DECOMPRESS, "The request's compressed body ends too early")


class _Lz4Encoder:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._header = self._frame.begin()

    def compress(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + self._frame.compress(data)

    def flush(self) -> bytes:
        return self._header + self._frame.flush()


class _Identity:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


_ENCODERS: dict[str, Callable[[], Any]] = {
    "lz4": _Lz4Encoder,
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "gzip": lambda: zlib.compressobj(level=1, wbits=31),
    "deflate": lambda: zlib.compressobj(level=1),
}


def encoder(accepted: str) -> tuple[str, Any]:
    """The first encoding of an Accept-Encoding header that we know, and an object with compress(data) and flush()."""
    for choice in accepted.split(","):
        name, _, weight = choice.strip().lower().partition(";")
        if name in _ENCODERS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name, _ENCODERS[name]()
    return "", _Identity()
