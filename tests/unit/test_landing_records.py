"""Files cut into records, and records into rows: what pyarrow and Python's csv module say of the same bytes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.ingest.deadletters import IngestError
from include.ingest.files_csv import open_csv
from include.ingest.files_json import Json, columns_of
from include.ingest.files_records import Block, Dead, FileError, blocks, old_mac, unzipped, utf8
from include.ingest.landing_options import KIND, Folder, column_names, table_name

MIB = 1 << 20


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def records(data: bytes, size: int = MIB, longest: int = MIB) -> list[tuple[int, bytes]]:
    """Line and bytes of each record; of dead ones the reason's first word too."""
    found: list[Any] = []
    for item in blocks(pieces(data, size), ",", longest):
        if isinstance(item, Dead):
            found.append((item.line, item.raw, item.reason))
        else:
            found += [(int(line), item.raw(index)) for index, line in enumerate(item.lines)]
    return found


def read(data: bytes, known: dict[str, pa.DataType] | None = None, **options: Any) -> tuple[Any, list[dict], list[Dead]]:
    """How a file is read, its rows and what is dead."""
    text = old_mac(utf8([data], options.get("encoding", "")))
    reader, items = open_csv(text, Folder(kind=KIND, source="x", **options), known or {})
    rows: list[dict] = []
    dead: list[Dead] = []
    for item in items:
        if isinstance(item, Dead):
            dead.append(item)
            continue
        parsed = reader.parse(item)
        assert parsed.read == len(item) == (len(parsed.table) if parsed.table else 0) + len(parsed.dead)
        rows += parsed.table.to_pylist() if parsed.table else []
        dead += parsed.dead
    return reader, rows, dead


values = st.text(st.sampled_from('ab,"\n\r;1'), max_size=5)


@settings(deadline=None)
@given(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=8), st.integers(1, 30))
def test_records_are_those_that_were_written(rows: list[list[str]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    data = text.getvalue().encode()
    found = records(data, size)
    assert [next(csv.reader(io.StringIO(raw.decode(), newline=""))) for _, raw in found] == rows
    line = 1
    for (at, _), row in zip(found, rows, strict=True):
        assert at == line
        line += 1 + "".join(row).count("\n")


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda raw: bytes(b'a",\n\r'[byte % 5] for byte in raw)), st.integers(1, 20))
def test_no_byte_is_lost_and_pieces_do_not_matter(data: bytes, size: int) -> None:
    assert records(data, size) == records(data)
    kept = b"".join(raw for _, raw, *_ in records(data))
    assert sorted(kept.translate(None, b"\r\n")) == sorted(data.translate(None, b"\r\n"))


def test_an_open_quote_costs_one_line() -> None:
    assert records(b'1,a\n2,"b\n3,c\n') == [(1, b"1,a"), (2, b'2,"b', "a quote is opened and never closed"), (3, b"3,c")]


def test_a_line_that_is_too_long_is_dead_and_the_next_one_is_not() -> None:
    found = records(b"1,a\n" + b"x" * (3 * MIB) + b"\n3,c\n", size=1000)
    assert [item[0] for item in found] == [1, 2, 3] and len(found[1][1]) < MIB and "longer than 1 MiB" in found[1][2]


def test_types_are_found_and_kept() -> None:
    data = b"n,x,day,at,zip,id,none\n1,1,2013-01-01,2013-01-01T05:00:00Z,00501,12345678901234567890,\n-2,2.5,,,10001,1,\n"
    reader, rows, dead = read(data)
    assert {name: str(kind) for name, kind in reader.columns.items()} == {
        "n": "int64",
        "x": "double",
        "day": "date32[day]",
        "at": "timestamp[us, tz=UTC]",
        "zip": "string",
        "id": "string",
        "none": "string",
    }
    assert rows[0]["zip"] == "00501" and rows[0]["id"] == "12345678901234567890" and rows[1]["day"] is None and not dead


def test_what_does_not_fit_is_dead_with_line_and_reason() -> None:
    known = {"a": pa.int64(), "b": pa.string()}
    _, rows, dead = read(b'a,b\n1,x\n\nnope,y\n"2",""\n3\n4,\xff\n5,z\n', known)
    assert [(row["a"], row["b"], row["_line"]) for row in rows] == [(1, "x", 2), (2, "", 5), (5, "z", 8)]
    assert sorted((item.line, item.raw, item.reason) for item in dead) == [
        (4, b"nope,y", "a: invalid value 'nope' (its type is int64)"),
        (6, b"3", "has 1 values; the file has 2 columns"),
        (7, b"4,\xff", "b: invalid UTF8 data (its type is string)"),
    ]


def test_columns_go_by_name_with_a_header_and_by_place_without() -> None:
    known = {"a": pa.int64(), "b": pa.string()}
    assert read(b"B;A\nx;1\n", known)[1] == [{"b": "x", "a": 1, "_line": 2}]
    assert read(b"1|x\n2|y\n", known)[1][1] == {"a": 2, "b": "y", "_line": 2}
    assert read(b"1,x\n", columns=("n", "t"))[1] == [{"n": 1, "t": "x", "_line": 1}]
    assert read(b"1,2\n3,4\n")[1][0] == {"c1": 1, "c2": 2, "_line": 1}
    with pytest.raises(FileError, match="has 3 columns and no header, and the table has 2: a, b"):
        read(b"1,2,3\n", known)


def test_encodings() -> None:
    assert read("a,b\n1,ä\n".encode("utf-8-sig"))[1] == [{"a": 1, "b": "ä", "_line": 2}]
    assert read("a,b\n1,ä\n".encode("utf-16"))[1] == [{"a": 1, "b": "ä", "_line": 2}]
    assert read("a,b\n1,ä\n".encode("latin-1"), encoding="latin-1")[1] == [{"a": 1, "b": "ä", "_line": 2}]
    assert read(b"a,b\r1,x\r2,y\r")[1][1] == {"a": 2, "b": "y", "_line": 3}


def test_nothing_in_it() -> None:
    for data in (b"", b"\n\n", b"a,b\n", b"\xef\xbb\xbf"):
        assert read(data, header=True)[0] is None


def test_gzip() -> None:
    whole = gzip.compress(b"abc\n" * 1000) + gzip.compress(b"def\n")
    assert b"".join(unzipped(pieces(whole, 7))) == b"abc\n" * 1000 + b"def\n"
    for broken in (whole[:-3], gzip.compress(b"abc" * 9999)[:-9]):
        with pytest.raises(FileError, match="breaks off"):
            list(unzipped([broken]))
    with pytest.raises(FileError, match="is no whole gzip file"):
        list(unzipped([b"no gzip at all"]))


def test_json_lines() -> None:
    data = b'{"a":1,"b":[1,2]}\n{"a":2.5,"New":"x"}\n[1]\n{broken\n\n{"a":NaN}\n'
    columns = columns_of(blocks([data], None, MIB), "utf-8", {})
    assert columns == {"a": pa.float64(), "b": pa.string(), "new": pa.string()}
    (block,) = blocks([data], None, MIB)
    assert isinstance(block, Block)
    parsed = Json("utf-8", columns).parse(block)
    assert parsed.table.to_pylist() == [
        {"a": 1.0, "b": "[1, 2]", "new": None, "_line": 1},
        {"a": 2.5, "b": None, "new": "x", "_line": 2},
    ]
    assert [item.line for item in parsed.dead] == [3, 4, 6]


def test_names() -> None:
    assert [table_name(name) for name in ("My Data", "2013", "größe", "a.b")] == ["my_data", "_2013", "gr__e", "a_b"]
    assert column_names(["Id", "tail-number", ""]) == ["id", "tail_number", "c3"]
    with pytest.raises(IngestError, match="columns a-b and A b both become a_b"):
        column_names(["a-b", "A b"])
    with pytest.raises(IngestError, match="_LINE has the name of one that ShuDL adds"):
        column_names(["_LINE"])
