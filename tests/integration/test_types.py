"""Every type that can be carried: through the snapshot, the stream, updates and deletes, into the lake and ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from include.cdc.coverage import wait_until_covered
from include.cdc.pipelines import HEARTBEAT_TABLE, Pipeline, PipelineError, Table
from include.cdc.reconcile import reconcile_database, reconcile_lake, reconcile_messaging, reconcile_table_jobs
from include.cdc.source import SourceTable, describe
from include.cdc.types import ARRAYS, TYPE_NAMES, carried
from include.lake.catalog import Lake
from include.platform import trino
from include.platform.endpoints import Endpoint, Endpoints
from include.platform.flink import FlinkError, JobManager, SqlGateway
from include.platform.kafka import admin_client
from include.platform.settings import settings
from include.proof import prove, stores
from include.proof.compare import bucket_count
from include.proof.dialects import CLICKHOUSE
from include.proof.served import whole
from include.proof.stores import Store
from include.serving import clickhouse
from include.serving.publish import pin
from tests.live import Platform

SOURCE = "types"
EVERYTHING = "public.everything"
ODD = "Odd-Schema.Order Items"
BIG = 10_000_000
"""Bytes of the big value."""

SETUP = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION seg;
CREATE EXTENSION vector;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, ok');
CREATE DOMAIN price AS numeric(10, 2);
CREATE DOMAIN positive AS price CHECK (VALUE IS NULL OR VALUE > 0);
CREATE DOMAIN numbers AS int[];
CREATE DOMAIN feeling AS mood;
"""

TEXTS = ("", " ", "null", "\\N", "~|", "a\nb\t'\"", "ü🛫", "__debezium_unavailable_value")
RANGE = ("[1,5)", "empty", "(,)")
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
TIMES = (
    *("1969-12-31 23:59:59.999999", "0001-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999"),
    *("1582-10-10 12:00:00.5", "1900-01-01 00:00:00", "2013-10-27 00:30:00"),
)
BEYOND = ("infinity", "-infinity", "0044-03-15 12:00:00.5 BC", "0001-12-31 00:00:00 BC", "10000-01-01 00:00:00", *TIMES)

SCALARS: dict[str, tuple[str, ...]] = {
    "int2": ("-32768", "32767"),
    "int4": ("-2147483648", "2147483647"),
    "int8": ("-9223372036854775808", "9223372036854775807"),
    "oid": ("4294967295",),
    "bool": ("true", "false"),
    "float4": ("-0", "NaN", "Infinity", "-Infinity", "1.4e-45", "16777217", "0.1"),
    "float8": ("-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.1"),
    "numeric(38,10)": ("-9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999", "0", "-1.5"),
    "numeric(38,0)": ("-99999999999999999999999999999999999999", "7"),
    "numeric(3,5)": ("0.00999",),
    "numeric(5,-2)": ("12300", "-9999900"),
    "numeric(50,2)": ("999999999999999999999999999999999999999999999999.99", "NaN"),
    "numeric": ("1.10", "1e-20", "1e50", "NaN", "Infinity", "-Infinity", "0", "-100"),
    "money": ("-92233720368547758.08", "92233720368547758.07", "0", "1234.5"),
    "date": ("0001-01-01", "9999-12-31", "1582-10-10", "1900-01-01", "2020-02-29"),
    "timestamp": TIMES,
    "timestamp(3)": ("2020-01-01 10:00:00.123",),
    "timestamptz": (*(f"{time}+00" for time in TIMES), "2013-10-27 02:30:00+02", "2013-10-27 02:30:00+01"),
    "time": ("00:00:00", "23:59:59.999999", "12:00:00.1", "12:34:00"),
    "interval": ("0", "1 year 2 mons -3 days 04:05:06.789", "-13 mons", "-01:30:00.000001", "100000:00:00", "178000000 years"),
    "bytea": (r"\x", r"\x00ff10", r"\x7e7c"),
    "uuid": (UUID,),
    "json": ('{ "b":1,"a":1,  "a":2 }', "null", '""'),
    "jsonb": ('{"b": 1.10, "a": [null, "x|~"]}', "null", "1e40"),
    "xml": (),
    "jsonpath": ("$.a[*] ? (@ > 1)",),
    "mood": ("sad", "it's, ok"),
    "feeling": ("ok",),
    "inet": ("192.168.0.1", "192.168.0.1/24", "::1", "2001:db8::/32"),
    "cidr": ("192.168.0.0/24", "10.0.0.1/32", "::/0"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "text": TEXTS,
    "varchar(40)": TEXTS,
    "char(4)": ("", "a", "a|b", "é"),
    '"char"': ("a", ""),
    "name": ("abc",),
    "citext": ("AbC",),
    "ltree": ("a.b.c",),
    "bit(1)": ("1", "0"),
    "bit(3)": ("101", "000", "100"),
    "bit(40)": ("1000000011111111000000000101010111000011", f"{0:040b}", f"{1:040b}"),
    "int4range": RANGE,
    "int8range": RANGE,
    "numrange": ("(1.5,2.50]",),
    "daterange": ("[2010-01-01,2010-01-05)", "(-infinity,infinity)"),
    "tsrange": ('["2010-01-01 14:30:00","2010-01-01 15:30:00")',),
    "tstzrange": ("[2010-01-01 14:30+02,infinity)", "[2010-01-01 14:30+02,)"),
    "int4multirange": ("{[1,3),[5,8)}", "{}"),
    "int8multirange": ("{[1,3)}",),
    "nummultirange": ("{[1.5,3)}",),
    "datemultirange": ("{[2010-01-01,2010-01-05)}",),
    "tsmultirange": ('{["2010-01-01 14:30:00","2010-01-01 15:30:00")}',),
    "tstzmultirange": ("{[2010-01-01 14:30+02,2010-01-01 15:30+02)}",),
    "tsvector": ("a:1A fat:2B,4C cat:5D", "'a b':1"),
    "tsquery": ("fat & (rat | cat)",),
    "pg_lsn": ("16/B374D848",),
    "pg_snapshot": ("10:20:10,14,15",),
    "txid_snapshot": ("10:20:10,14,15",),
    "xid": ("42",),
    "xid8": ("42",),
    "tid": ("(0,1)",),
    "cube": ("(1,2),(3,4)",),
    "seg": ("1..2",),
    "hstore": (
        "",
        'b=>NULL,a=>"1 ""=,|~",é=>N,"N"=>""'.replace('""', r"\""),
    ),
    "positive": ("1.50",),
    "numbers": ("{1,NULL}",),
}
ARRAY_VALUES: dict[str, tuple[str, ...]] = {
    "int2": ("{1,NULL}", "{}"),
    "int4": ("{}", "{1,NULL,-5}", "{NULL}"),
    "int8": ("{9223372036854775807,NULL}",),
    "oid": ("{1,4294967295}",),
    "bool": ("{t,f,NULL}", "{}"),
    "float4": ("{NaN,-0,0.1,NULL}",),
    "float8": ("{NaN,-0,Infinity,NULL,0.1}",),
    "numeric(10,2)": ("{1.50,NULL}", "{}", "{0.00,-99999999.99}"),
    "bytea": (r'{"\\x00ff",NULL,"\\x"}',),
    "text": (r'{"",NULL,"NULL","a,b","\"}","~|N,1:x"}', "{}"),
    "varchar(5)": ("{a,NULL}",),
    "char(3)": ("{a,NULL}",),
    "citext": ("{A,NULL}",),
    "uuid": (f"{{{UUID},NULL}}",),
    "json": (r'{"{\"a\":  1}",NULL}',),
    "jsonb": (r'{"{\"a\": 1}",NULL}',),
    "mood": ('{sad,"it\'s, ok"}', "{}"),
    "ltree": ("{a.b}",),
    "inet": ("{10.0.0.1,NULL}",),
    "cidr": ("{10.0.0.0/8}",),
    "macaddr": ("{08:00:2b:01:02:03}",),
    "macaddr8": ("{08:00:2b:01:02:03:04:05}",),
    "int4range": ('{"[1,5)",NULL}',),
    "int8range": ('{"[1,5)"}',),
    "numrange": ('{"[1,2)"}',),
    "daterange": ('{"[2010-01-01,2010-01-05)"}',),
    "tsrange": (r'{"[\"2010-01-01 14:30:00\",)"}',),
    "tstzrange": (r'{"[2010-01-01 14:30+02,)"}',),
}
KEPT_AS_TEXT: dict[str, tuple[str, ...]] = {
    "date": tuple(dict.fromkeys(value.split()[0] + (" BC" if value.endswith("BC") else "") for value in BEYOND)),
    "timestamp": BEYOND,
    "timestamptz": tuple(
        f"{value.removesuffix(' BC')}+00{' BC' if value.endswith('BC') else ''}" if value[-1] != "y" else value
        for value in BEYOND
    ),
    "numeric(10,2)": ("NaN", "1.50"),
}


@dataclass(frozen=True)
class Wide:
    """A column of the wide table and its values, as text that PostgreSQL reads."""

    name: str
    type: str
    values: tuple[str, ...]


COLUMNS = (
    *(Wide(f"c{n}", kind, values) for n, (kind, values) in enumerate(SCALARS.items())),
    *(Wide(f"a{n}", f"{kind}[]", values) for n, (kind, values) in enumerate(ARRAY_VALUES.items())),
    *(Wide(f"t{n}", kind, values) for n, (kind, values) in enumerate(KEPT_AS_TEXT.items())),
)
ROWS = max(len(column.values) for column in COLUMNS) + 1
"""One more than there are values: the last row is all NULL."""


def column_of(kind: str) -> str:
    return next(column.name for column in COLUMNS if column.type == kind)


@dataclass(frozen=True)
class Types:
    endpoints: Endpoints
    pipeline: Pipeline
    tables: dict[str, SourceTable]

    def lake(self, statement: str) -> list[Any]:
        with trino.connect(self.endpoints, "lake", 60) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall()

    def mirror(self, name: str) -> str:
        return f"lake.{self.pipeline.iceberg_table(name)}"

    def clickhouse(self) -> Store:
        """ClickHouse reading the mirrors as the serving models do."""
        at = pin(Lake.from_endpoints(self.endpoints), [self.pipeline.iceberg_table(name) for name in self.tables]).tables

        def query(statement: str) -> list[Any]:
            with clickhouse.connect(self.endpoints, 60) as client:
                return list(client.query(statement).result_rows)

        def relation(table: SourceTable) -> str:
            where = at[self.pipeline.iceberg_table(table.name)]
            return f"icebergS3(lake_s3, url = '{where.url}', SETTINGS iceberg_metadata_file_path = '{where.metadata}')"

        return Store("clickhouse", CLICKHOUSE, query, relation)


def insert_everything(connection: psycopg.Connection, first: int) -> None:
    for row in range(ROWS):
        there = [column for column in COLUMNS if row < len(column.values)]
        names = "".join(f", {column.name}" for column in there)
        places = "".join(f", CAST(%s AS {column.type})" for column in there)
        connection.execute(
            f"INSERT INTO everything (id{names}) VALUES (%s{places})", [first + row, *(column.values[row] for column in there)]
        )


def insert_odd(connection: psycopg.Connection, first: int) -> None:
    for number in range(first, first + 4):
        connection.execute(
            'INSERT INTO "Odd-Schema"."Order Items" ("Größe", "select", "1st", "Mixed Case", "from") VALUES (%s, %s, %s, %s, %s)',
            [("s", "m")[number % 2], number, f"{number}", number / 4, None if number % 2 else "x" * number],
        )
    connection.execute(
        """INSERT INTO "Odd-Schema"."Order Items" VALUES ('m', %s, 'big', 1, repeat(%s, %s))""", [first + 9, str(first)[0], BIG]
    )


def change(connection: psycopg.Connection) -> None:
    """Inserts, updates, deletes, and updates of keys."""
    insert_everything(connection, 101)
    insert_odd(connection, 101)
    connection.execute(
        "UPDATE everything SET " + ", ".join(f"{c.name} = CAST(%s AS {c.type})" for c in COLUMNS if c.values) + " WHERE id = 1",
        [c.values[-1] for c in COLUMNS if c.values],
    )
    connection.execute("UPDATE everything SET c0 = 5 WHERE id BETWEEN 102 AND 105")
    connection.execute("DELETE FROM everything WHERE id IN (3, 103)")
    connection.execute("UPDATE everything SET id = id + 1000 WHERE id IN (4, 104)")
    odd = '"Odd-Schema"."Order Items"'
    connection.execute(f"""UPDATE {odd} SET "Mixed Case" = "Mixed Case" + 1 WHERE "select" IN (1, 101, 10)""")
    connection.execute(f"""UPDATE {odd} SET "Größe" = 's' WHERE "select" IN (1, 101)""")
    connection.execute(f"""DELETE FROM {odd} WHERE "select" IN (2, 102)""")


@pytest.fixture(scope="module")
def types(platform: Platform) -> Iterator[Types]:
    """A database of its own, mirrored: half of its rows by the snapshot, half by the stream."""
    given = platform.endpoints["flights_db"]
    admin = replace(given, login="postgres", password=settings.secret("postgres_superuser"), schema="postgres")
    with psycopg.connect(admin.conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(SOURCE), sql.Identifier(given.login)))
    source = replace(given, conn_id=f"{SOURCE}_db", schema=SOURCE)
    endpoints: dict[str, Endpoint] = {**platform.endpoints, source.conn_id: source}
    pipeline = Pipeline.model_validate(
        {
            "source": SOURCE,
            "connection": source.conn_id,
            "tables": {EVERYTHING: {"text": [f"t{n}" for n in range(len(KEPT_AS_TEXT))]}, ODD: {}},
        }
    )
    try:
        with psycopg.connect(replace(admin, schema=SOURCE).conninfo, autocommit=True) as connection:
            for statement in SETUP.split(";")[:6]:
                connection.execute(statement)
        with psycopg.connect(source.conninfo) as connection:
            connection.execute(";".join(SETUP.split(";")[6:]))
            columns = ", ".join(f"{column.name} {column.type}" for column in COLUMNS)
            connection.execute(f"CREATE TABLE everything (id int PRIMARY KEY, {columns})")
            connection.execute(
                """
                CREATE SCHEMA "Odd-Schema";
                CREATE TABLE "Odd-Schema"."Order Items" (
                    "Größe" text, "select" int, "1st" varchar(9), "Mixed Case" numeric(10, 2), "from" text,
                    "twice, stored" numeric(10, 2) GENERATED ALWAYS AS ("Mixed Case" * 2) STORED,
                    PRIMARY KEY ("select", "Größe")
                ) PARTITION BY LIST ("Größe");
                CREATE TABLE "Odd-Schema"."S part" PARTITION OF "Odd-Schema"."Order Items" FOR VALUES IN ('s');
                CREATE TABLE public.others PARTITION OF "Odd-Schema"."Order Items" DEFAULT;
                CREATE TABLE "Odd-Schema"."order items" (id int PRIMARY KEY);
                INSERT INTO "Odd-Schema"."order items" VALUES (1);
                """
            )
            insert_everything(connection, 1)
            insert_odd(connection, 1)
        for step in (reconcile_database, reconcile_messaging, reconcile_lake):
            step(pipeline, endpoints)
        for table in pipeline.tables:
            reconcile_table_jobs(pipeline, endpoints, table)
        wait_until_covered(pipeline, endpoints, timeout_s=45)
        with psycopg.connect(source.conninfo, autocommit=True) as connection:
            tables = {table.name: table for table in describe(connection, pipeline)}
            change(connection)
        yield Types(endpoints, pipeline, tables)
    finally:
        remove(pipeline, endpoints, admin)


def remove(pipeline: Pipeline, endpoints: Endpoints, admin: Endpoint) -> None:
    """The connector with its offsets, the jobs, the tables in the lake and the database with its slot."""
    connect = f"{endpoints['shudl_connect'].url}/connectors/{pipeline.connector}"
    httpx.put(f"{connect}/stop", timeout=30)
    Platform.eventually(lambda: httpx.delete(f"{connect}/offsets", timeout=30).status_code in (200, 404), 60, "offsets are gone")
    httpx.delete(connect, timeout=30)
    manager = JobManager(endpoints["shudl_flink"].url)
    for job in manager.jobs():
        if job["name"].startswith(f"cdc.{pipeline.source}.") and job["state"] in ("RUNNING", "RESTARTING"):
            manager.cancel(job["jid"])
    topics = admin_client(endpoints["shudl_kafka"])
    for gone in topics.delete_topics([pipeline.topic(table) for table in (*pipeline.tables, HEARTBEAT_TABLE)]).values():
        gone.exception(30)
    catalog = Lake.from_endpoints(endpoints).pyiceberg()
    for table in pipeline.tables:
        if catalog.table_exists(pipeline.iceberg_table(table)):
            catalog.drop_table(pipeline.iceberg_table(table))
    if catalog.namespace_exists(pipeline.namespace):
        catalog.drop_namespace(pipeline.namespace)
    with psycopg.connect(admin.conninfo, autocommit=True) as connection:

        def drop_slot() -> bool:
            state = connection.execute(
                "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (pipeline.slot,)
            ).fetchone()
            if state == (False,):
                connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.slot,))
            return state != (True,)

        Platform.eventually(drop_slot, 60, "the slot is gone")
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(pipeline.source)))


def test_every_type_is_tried() -> None:
    def names(kinds: dict[str, Any]) -> set[str]:
        return {{"char(3)": "bpchar", "char(4)": "bpchar", "mood": "enum"}.get(kind, kind.partition("(")[0]) for kind in kinds}

    assert {name.strip('"') for name in names(SCALARS)} - {"feeling", "positive", "numbers"} == set(TYPE_NAMES)
    assert names(ARRAY_VALUES) == set(ARRAYS)


@pytest.fixture(scope="module")
def proven(types: Types) -> Types:
    report = prove(types.pipeline, types.endpoints, 400)
    assert report.unresolved == 0, report.text()
    return types


def test_every_value_is_the_same_in_the_lake(proven: Types) -> None:
    """The fixture has compared them; here only that all rows were there to be compared."""
    assert {name: proven.lake(f"SELECT count(*) FROM {proven.mirror(name)}") for name in proven.tables} == {
        EVERYTHING: [[2 * ROWS - 2]],
        ODD: [[8]],
    }


@pytest.mark.parametrize("name", [EVERYTHING, ODD])
def test_every_value_is_the_same_in_clickhouse(proven: Types, name: str) -> None:
    table = whole(proven.tables[name])
    lake, served = stores.iceberg(proven.pipeline, proven.endpoints, 60), proven.clickhouse()
    buckets = lake.buckets(table, bucket_count(ROWS))
    assert sum(bucket.rows for bucket in buckets.values()) == (2 * ROWS - 2 if name == EVERYTHING else 8)
    assert served.buckets(table, bucket_count(ROWS)) == buckets


def test_values_as_people_read_them(proven: Types) -> None:
    """What the proof compares is written by the table of types; these are written by hand. Row 2 came by the snapshot,
    row 102 by the stream; both have each column's second value."""
    date, time, zoned, big, bits, interval, bytea, numbers, arrays = (
        column_of(kind)
        for kind in ("date", "timestamp", "timestamptz", "numeric(38,10)", "bit(40)", "interval", "bytea", "int4[]", "text[]")
    )
    expected = {
        date: "9999-12-31",
        time: "0001-01-01 00:00:00.000001",
        big: "9999999999999999999999999999.9999999999",
        bits: "0" * 40,
        interval: "P1Y2M-3DT4H5M6.789S",
        column_of("numeric"): "0.00000000000000000001",
        column_of("xid8"): None,
        "t0": "-infinity",
        "t1": "-infinity",
        "t2": "-infinity",
        "t3": "1.50",
    }
    shown = ", ".join(f"CAST({name} AS varchar)" for name in expected)
    for row in (2, 102):
        assert proven.lake(f"SELECT {shown} FROM {proven.mirror(EVERYTHING)} WHERE id = {row}") == [list(expected.values())]
    texts = ", ".join(f"t{n}" for n in range(3))
    assert proven.lake(f"SELECT {texts} FROM {proven.mirror(EVERYTHING)} WHERE id = 1004") == [
        ["0001-12-31 BC", "0001-12-31 00:00:00 BC", "0001-12-31 00:00:00+00 BC"]
    ]
    assert proven.lake(
        f"SELECT to_hex({bytea}), CAST({zoned} AS varchar), {numbers}, {arrays} FROM {proven.mirror(EVERYTHING)} WHERE id = 102"
    ) == [["00FF10", "0001-01-01 00:00:00.000001 UTC", [1, None, -5], []]]
    assert proven.lake(f"SELECT {numbers}, {arrays} FROM {proven.mirror(EVERYTHING)} WHERE id = 105") == [[None, None]]


def test_names_and_big_values(proven: Types) -> None:
    columns = [name for name, *_ in proven.lake(f"SHOW COLUMNS FROM {proven.mirror(ODD)}")]
    assert columns == ["gr__e", "select", "_1st", "mixed_case", "from", "twice__stored", "_lsn", "_committed_at"]
    assert proven.lake(
        f'SELECT gr__e, "select", _1st, mixed_case, twice__stored, length("from") FROM {proven.mirror(ODD)} ORDER BY "select"'
    ) == [
        ["s", 1, "1", Decimal("1.25"), Decimal("2.50"), None],
        ["m", 3, "3", Decimal("0.75"), Decimal("1.50"), None],
        ["s", 4, "4", Decimal("1.00"), Decimal("2.00"), 4],
        ["m", 10, "big", Decimal("2.00"), Decimal("4.00"), BIG],
        ["s", 101, "101", Decimal("26.25"), Decimal("52.50"), None],
        ["m", 103, "103", Decimal("25.75"), Decimal("51.50"), None],
        ["s", 104, "104", Decimal("26.00"), Decimal("52.00"), 104],
        ["m", 110, "big", Decimal("1.00"), Decimal("2.00"), BIG],
    ]


def test_what_cannot_be_carried_is_refused_by_name(types: Types) -> None:
    refused = {
        "timetz": "type timetz cannot be carried",
        "varbit(5)": "type varbit cannot be carried",
        "point": "type point cannot be carried",
        "date[]": "type date[] cannot be carried",
        "int[][]": "have one dimension",
        "pair": "type composite cannot be carried",
        "feeling[]": "type domain[] cannot be carried",
        "numeric[]": "type numeric[] cannot be carried",
        "vector(3)": "type vector cannot be carried",
    }
    with psycopg.connect(types.endpoints[types.pipeline.connection].conninfo) as connection:
        columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(refused))
        connection.execute("CREATE TYPE pair AS (a int, b text)")
        connection.execute(
            f"""
            CREATE TABLE refused (id int PRIMARY KEY, "Größe" text, "GRo/sE" text, "GRÖßE" text, _lsn int, _pos int,
                twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, {columns});
            CREATE TABLE floats (id float8 PRIMARY KEY);
            CREATE TABLE logged (id int PRIMARY KEY, "b b" bytea[]);
            """
        )
        pipeline = types.pipeline.model_copy(
            update={
                "tables": {
                    "public.refused": Table(text=("id", "nothing")),
                    "public.floats": Table(),
                    "public.logged": Table(mode="changelog"),
                }
            }
        )
        with pytest.raises(PipelineError) as found:
            describe(connection, pipeline)
        connection.rollback()
    problems = found.value.problems
    for n, (kind, why) in enumerate(refused.items()):
        assert [why in problem for problem in problems if f": column c{n}: " in problem] == [True], kind
    for words in (
        "column id: type int4 cannot be kept as text",
        "text names nothing, which is no column of it",
        "columns Größe and GRÖßE: both would be gr__e",
        "column _lsn: ShuDL adds a column",
        "column _pos: _pos is a name of Iceberg's own",
        "column twice is generated and virtual",
        "public.logged: column b b: type bytea[] cannot be in a changelog",
        "public.floats: column id: type double precision cannot be in an Iceberg table's key",
    ):
        assert [words in problem for problem in problems].count(True) == 1, words
    assert len(problems) == len(refused) + 8


UNHOLDABLE = {
    "date": ("+5877611-06-21Z", "-5877611-06-22Z", "-0043-03-15Z", "0000-12-31Z", "+10000-01-01Z"),
    "timestamp": (
        *("+292278994-08-16T23:00:00Z", "-292275055-05-16T23:00:00Z", "-0043-03-15T12:00:00.5Z"),
        *("0000-12-31T00:00:00Z", "+10000-01-01T00:00:00Z"),
    ),
    "timestamptz": ("infinity", "-infinity", "-0043-03-15T12:00:00.500000Z", "+10000-01-01T00:00:00.000000Z"),
    "numeric": ("NAN",),
}
"""What Debezium writes for values that a native column cannot hold."""


def test_flink_refuses_what_the_lake_cannot_hold(platform: Platform) -> None:
    with SqlGateway(platform.endpoints["shudl_flink_gateway"].url, {"restart-strategy.type": "none"}) as gateway:
        for name, values in UNHOLDABLE.items():
            expression = carried(name, 5, 2).flink_expression.format(c="c")
            for value in values:
                with pytest.raises(FlinkError, match=r"DateTime\w*Exception|NumberFormatException"):
                    gateway.execute(f"SELECT {expression} FROM (VALUES (CAST('{value}' AS STRING))) AS t (c)")


def test_a_value_that_the_lake_cannot_hold_stops_the_job(proven: Types) -> None:
    """The last test of the file: the job does not run again."""
    date = column_of("date")
    with psycopg.connect(proven.endpoints[proven.pipeline.connection].conninfo, autocommit=True) as connection:
        connection.execute(f"INSERT INTO everything (id, {date}) VALUES (5000, 'infinity')")
    manager = JobManager(proven.endpoints["shudl_flink"].url)
    (job,) = [j["jid"] for j in manager.jobs() if j["name"] == proven.pipeline.job(EVERYTHING) and j["state"] == "RUNNING"]
    Platform.eventually(lambda: "5877611-06-21" in manager.failure(job), 30, "the job says which value it cannot write")
    assert proven.lake(f"SELECT count(*) FROM {proven.mirror(EVERYTHING)} WHERE id = 5000") == [[0]]
