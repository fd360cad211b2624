"""ClickHouse's exceptions: codes, names, texts, and the HTTP status of each code."""

from __future__ import annotations

import re

BAD_ARGUMENTS = (36, "BAD_ARGUMENTS")
NOT_IMPLEMENTED = (48, "NOT_IMPLEMENTED")
LOGICAL_ERROR = (49, "LOGICAL_ERROR")
SYNTAX_ERROR = (62, "SYNTAX_ERROR")
CANNOT_DECOMPRESS = (271, "CANNOT_DECOMPRESS")
UNKNOWN_COMPRESSION_METHOD = (89, "UNKNOWN_COMPRESSION_METHOD")
READONLY = (164, "READONLY")
TOO_MANY_SIMULTANEOUS_QUERIES = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = (216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING")
QUERY_IS_TOO_LARGE = (229, "QUERY_IS_TOO_LARGE")
SESSION_NOT_FOUND = (372, "SESSION_NOT_FOUND")
SESSION_IS_LOCKED = (373, "SESSION_IS_LOCKED")
INTO_OUTFILE_NOT_ALLOWED = (358, "INTO_OUTFILE_NOT_ALLOWED")
INVALID_SESSION_TIMEOUT = (374, "INVALID_SESSION_TIMEOUT")
AUTHENTICATION_FAILED = (516, "AUTHENTICATION_FAILED")
STD_EXCEPTION = (1001, "STD_EXCEPTION")

# ClickHouse's src/Server/HTTP/exceptionCodeToHTTPStatus.cpp, by code; 202 is ours: a client may retry it.
_BAD_REQUEST = (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676)
_NOT_FOUND = (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511)
_STATUS = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    194: 401,
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys(_NOT_FOUND, 404),
    159: 408,
    229: 413,
    48: 501,
    **dict.fromkeys((76, 202, 209, 439), 503),
}

_ENGINE_TEXT = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.S)
_REPEATED = re.compile(r"^(Code: \d+\. DB::Exception: )\1+")
_VERSION = re.compile(r"\s*\(version [^)]*\)\s*$")


class ClickHouseError(Exception):
    """One ClickHouse exception; ``str()`` is its text without the server's version."""

    def __init__(self, kind: tuple[int, str], message: str) -> None:
        self.code, name = kind
        super().__init__(f"Code: {self.code}. DB::Exception: {message} ({name})" if name else message)

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse answers with for this code."""
        return _STATUS.get(self.code, 500)

    @classmethod
    def from_engine(cls, error: Exception) -> ClickHouseError:
        """The ClickHouse exception in the text of what the engine's Python binding raised."""
        found = _ENGINE_TEXT.search(str(error))
        if not found:
            return cls(STD_EXCEPTION, str(error))
        return cls((int(found[1]), ""), _REPEATED.sub(r"\1", _VERSION.sub("", found[0]).rstrip()))
