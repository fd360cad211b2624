"""The same arithmetic in three dialects of SQL: canonical text, md5, its two 64-bit halves, their sums.

A row's text is its columns' canonical texts (:mod:`include.cdc.types`) with ``|`` between them; NULL is ``~N``, and in
free text ``~`` is ``~0`` and ``|`` is ``~1``: no two rows share a text. A row's bucket comes from the text of its key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from include.cdc.source import Column, SourceTable
from include.cdc.types import Carried

Key = tuple[str, ...]
"""A row's key columns as canonical text."""


def literal(text: str) -> str:
    """A string in standard SQL."""
    return "'" + text.replace("'", "''") + "'"


def _unnest(rows: Sequence[Sequence[str]]) -> str:
    arrays = ", ".join(f"ARRAY[{', '.join(column)}]" for column in zip(*rows, strict=True))
    return f"unnest({arrays}) AS k ({', '.join(f'k_{n}' for n in range(len(rows[0])))})"


def _values(rows: Sequence[Sequence[str]]) -> str:
    columns = ", ".join(f"k_{n} String" for n in range(len(rows[0])))
    return f"values('{columns}', {', '.join('(' + ', '.join(row) + ')' for row in rows)})"


@dataclass(frozen=True)
class Dialect:
    """How one engine writes it. ``{…}`` in the templates are SQL; hashes are signed 64-bit integers."""

    text_of: Callable[[Carried], str]
    item: str
    row: str
    md5: str
    first_half: str
    second_half: str
    bucket: str
    total: str
    column_of: Callable[[Column], str] = attrgetter("lake_name")
    """What the engine calls a column."""
    quote: str = '"'
    literal: Callable[[str], str] = literal
    values: Callable[[Sequence[Sequence[str]]], str] = _unnest
    """A relation with the columns ``k_0``, ``k_1``, … that holds rows of literals."""
    mark: str = "NULL"
    """Something of a row that changes whenever it is written."""
    fence: str = ""
    """Keeps the optimizer from computing a hash once for each time that it is named."""

    def name(self, *parts: str) -> str:
        """A quoted identifier."""
        return ".".join(self.quote + part.replace(self.quote, self.quote * 2) + self.quote for part in parts)

    def text(self, column: Column) -> str:
        """The canonical text of a column; NULL when it is NULL."""
        return self.text_of(column.carried).format(c=self.name(self.column_of(column)))

    def _row(self, columns: Sequence[Column]) -> str:
        return self.row.format(items=", ".join(self.item.format(text=self._escaped(column)) for column in columns))

    def _escaped(self, column: Column) -> str:
        text = self.text(column)
        return f"replace(replace({text}, '~', '~0'), '|', '~1')" if column.carried.free_text else text

    def hashed(self, table: SourceTable, relation: str, also: str = "") -> str:
        """A query of ``key`` and ``row``, the md5 of every row's key and of all of it."""
        key, row = (self.md5.format(text=self._row(columns)) for columns in (key_columns(table), table.columns))
        return f"SELECT {also}{key} AS h_key, {row} AS h_row FROM {relation}{self.fence}"

    def _bucket(self, buckets: int) -> str:
        return self.bucket.format(hash=self.first_half.format(md5="h_key"), mask=buckets - 1)

    def buckets(self, table: SourceTable, relation: str, buckets: int) -> str:
        """A query of each bucket's number, its rows and the sums of their hashes' halves. ``buckets``: a power of two."""
        sums = ", ".join(self.total.format(hash=half.format(md5="h_row")) for half in (self.first_half, self.second_half))
        return (
            f"SELECT bucket, count(*), {sums} FROM (SELECT {self._bucket(buckets)} AS bucket, h_row "
            f"FROM ({self.hashed(table, relation)}) hashed) bucketed GROUP BY bucket"
        )

    def listing(self, table: SourceTable, relation: str, buckets: int, chosen: Sequence[int]) -> str:
        """A query of the key and half of the hash of every row of the ``chosen`` ones of ``buckets``."""
        texts = "".join(f"{self.text(column)} AS k_{n}, " for n, column in enumerate(key_columns(table)))
        names = "".join(f"k_{n}, " for n in range(len(table.key)))
        return (
            f"SELECT {names}{self.first_half.format(md5='h_row')} FROM ({self.hashed(table, relation, texts)}) hashed "
            f"WHERE {self._bucket(buckets)} IN ({', '.join(map(str, chosen))})"
        )

    def rows(self, table: SourceTable, relation: str, types: Mapping[str, str], keys: Sequence[Key]) -> str:
        """A query of the rows with these keys: all columns' texts, then :attr:`mark`.

        ``types``: the key columns' types, so that an index or statistics can be used; without them texts are compared.
        """
        key = key_columns(table)
        names = ", ".join(self.name(self.column_of(column)) if types else self.text(column) for column in key)
        casts = ", ".join(f"CAST(k_{n} AS {types[name]})" if types else f"k_{n}" for n, name in enumerate(table.key))
        texts = ", ".join(self.text(column) for column in table.columns)
        return (
            f"SELECT {texts}, {self.mark} FROM {relation} "
            f"WHERE ({names}) IN (SELECT {casts} FROM {self.values([[self.literal(text) for text in key] for key in keys])})"
        )


def key_columns(table: SourceTable) -> list[Column]:
    by_name = {column.name: column for column in table.columns}
    return [by_name[name] for name in table.key]


POSTGRES = Dialect(
    text_of=attrgetter("postgres_text"),
    item="{text}",
    row="array_to_string(ARRAY[{items}], '|', '~N')",
    md5="md5(convert_to({text}, 'UTF8'))",
    first_half="('x' || left({md5}, 16))::bit(64)::bigint",
    second_half="('x' || right({md5}, 16))::bit(64)::bigint",
    bucket="{hash} & {mask}",
    total="sum({hash})",
    mark="xmin",
    column_of=attrgetter("name"),
    fence=" OFFSET 0",
)
TRINO = Dialect(
    text_of=attrgetter("trino_text"),
    item="{text}",
    row="array_join(ARRAY[{items}], '|', '~N')",
    md5="md5(to_utf8({text}))",
    first_half="from_big_endian_64(substr({md5}, 1, 8))",
    second_half="from_big_endian_64(substr({md5}, 9, 8))",
    bucket="bitwise_and({hash}, {mask})",
    total="sum(CAST({hash} AS decimal(38, 0)))",
)
CLICKHOUSE = Dialect(
    text_of=attrgetter("clickhouse_text"),
    item="ifNull({text}, '~N')",
    row="arrayStringConcat([{items}], '|')",
    md5="MD5({text})",
    first_half="reinterpretAsInt64(reverse(substring({md5}, 1, 8)))",
    second_half="reinterpretAsInt64(reverse(substring({md5}, 9, 8)))",
    bucket="bitAnd({hash}, {mask})",
    total="sum(toInt128({hash}))",
    quote="`",
    literal=lambda text: literal(text.replace("\\", "\\\\")),
    values=_values,
)
