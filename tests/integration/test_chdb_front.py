"""The chdb HTTP front, as its clients see it: clickhouse-connect and plain HTTP, against the real engine."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path

import clickhouse_connect
import httpx
import pandas
import pyarrow
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from include.platform.settings import ROOT, settings

USER, PASSWORD = "tester", "correct horse"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One front over ``path``."""

    def __init__(self, path: Path) -> None:
        self.path, self.port = path, free_port()
        self.password_file = path.with_name("password")
        self.password_file.write_text(PASSWORD)
        self.log = path.with_name("log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self, port: int) -> subprocess.Popen[bytes]:
        command = [settings.python("chdb"), "-m", "include.serving.chdb_front"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--path", self.path]
        environment = {**os.environ, "CLICKHOUSE_USER": USER, "CLICKHOUSE_PASSWORD_FILE": str(self.password_file)}
        environment |= {"CLICKHOUSE_MEMORY_BYTES": "1000000000", "PYTHONPATH": str(ROOT), "TZ": "America/New_York"}
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def start(self) -> None:
        self.process = self.spawn(self.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{self.url}/ping").text == "Ok.\n":
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "no answer to /ping within 30 s"
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def client(self, **options):
        options = {"password": PASSWORD, "autogenerate_session_id": False, **options}
        return closing(clickhouse_connect.get_client(host="127.0.0.1", port=self.port, username=USER, **options))

    def http(
        self, query: str = "", method: str = "POST", headers: dict | None = None, content=None, auth=(USER, PASSWORD), **params
    ):
        if query:
            params["query"] = query
        return httpx.request(method, self.url, params=params, headers=headers, content=content, auth=auth, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("chdb") / "data")
    server.start()
    yield server
    if server.process.poll() is None:
        assert server.stop() == 0, server.log.read_text()


@pytest.fixture
def client(server: Server):
    with server.client() as client:
        yield client


@pytest.fixture
def table(client) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex[:8]}"
    yield name
    client.command(f"DROP TABLE IF EXISTS {name} SYNC")


def test_wrong_credentials_are_refused(server: Server) -> None:
    wrong = server.http("SELECT 1", auth=(USER, "wrong"))
    assert (wrong.status_code, wrong.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
    assert "AUTHENTICATION_FAILED" in wrong.text
    nobody = server.http("SELECT 1", auth=None)
    assert (nobody.status_code, nobody.headers["X-ClickHouse-Exception-Code"]) == (401, "516")
    assert nobody.headers["WWW-Authenticate"].startswith("Basic")
    with pytest.raises(DatabaseError, match="516"), server.client(password="wrong"):
        pass


@pytest.mark.parametrize("way", ["basic", "headers", "url"])
def test_every_way_to_authenticate(server: Server, way: str) -> None:
    headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD} if way == "headers" else None
    params = {"user": USER, "password": PASSWORD} if way == "url" else {}
    answer = server.http("SELECT 7", headers=headers, auth=(USER, PASSWORD) if way == "basic" else None, **params)
    assert (answer.status_code, answer.text) == (200, "7\n")


def test_plain_http(server: Server) -> None:
    answer = server.http("SELECT 1 AS a", method="GET", query_id="mine")
    assert (answer.text, answer.headers["X-ClickHouse-Query-Id"]) == ("1\n", "mine")
    assert answer.headers["X-ClickHouse-Format"] == "TabSeparated"
    assert answer.headers["X-ClickHouse-Timezone"] == server.http("SELECT timezone()").text.strip() == "UTC"
    assert server.http("SELECT 1 AS a", default_format="JSONEachRow").text == '{"a":1}\n'
    assert server.http("SELECT 1 AS a FORMAT CSVWithNames;", headers={"X-ClickHouse-Format": "JSON"}).text == '"a"\n1\n'
    assert server.http("SELECT", content="1 + 1").text == "2\n"
    summary = json.loads(server.http("SELECT count() FROM numbers(1000)").headers["X-ClickHouse-Summary"])
    assert summary["read_rows"] == "1000"
    assert server.http("EXPLAIN AST SELECT 1").text.startswith("SelectWithUnionQuery")


def test_get_only_reads(server: Server) -> None:
    for statement in ("CREATE TABLE nope (n Int8) ENGINE = Memory", "INSERT INTO nope VALUES (1)", "SET max_threads = 1"):
        answer = server.http(statement, method="GET")
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164", statement


@pytest.mark.parametrize(
    ("statement", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT * FROM nosuch", 404, 60),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1; SELECT 2", 400, 62),
        ("INSERT INTO nosuch VALUES (1)", 404, 60),
        ("SELECT 1 SETTINGS nosuch = 1", 404, 115),
        ("SELECT 1 INTO OUTFILE '/dev/null'", 500, 358),
        ("", 400, 62),
    ],
)
def test_errors(server: Server, statement: str, status: int, code: int) -> None:
    answer = server.http(content=statement)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in answer.text


def test_settings_and_database_hold_for_one_request(client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS other")
    with pytest.raises(DatabaseError, match="115"):
        client.raw_query("SELECT 1", settings={"no_such_setting_": 1})
    for session in (None, "s1"):
        transport = {"session_id": session} if session else {}
        given = {"max_threads": 3, "database": "other", **transport}
        seen = client.query("SELECT getSetting('max_threads'), currentDatabase()", settings=given)
        assert seen.result_rows == [(3, "other")]
        after = client.query(
            "SELECT currentDatabase(), changed FROM system.settings WHERE name = 'max_threads'", settings=transport
        )
        assert after.result_rows == [("default", 0)]


def test_parameters(client, server: Server) -> None:
    text = "it's a \t\\ \N{SNOWMAN}"
    given = {"s": text, "n": -1, "d": date(2013, 1, 2), "a": ["x'", "y"]}
    rows = client.query("SELECT {s:String}, {n:Int32}, {d:Date}, {a:Array(String)}", parameters=given)
    assert rows.result_rows == [(text, -1, date(2013, 1, 2), ["x'", "y"])]
    assert client.query("SELECT %(s)s, %(n)s", parameters={"s": text, "n": 5}).result_rows == [(text, 5)]
    assert client.query("SELECT length({s:String})", parameters={"s": "x" * 50_000}).result_rows == [(50_000,)]  # goes as a form
    assert server.http("SELECT {x:Int}", param_x="5").text == "5\n"


VALUES = {
    "i8 Int8": [-128, 127],
    "i16 Int16": [-1, 1],
    "i32 Int32": [-1, 1],
    "i64 Int64": [-(2**63), 2**63 - 1],
    "i128 Int128": [-(2**127), 1],
    "u8 UInt8": [0, 255],
    "u64 UInt64": [0, 2**64 - 1],
    "f32 Float32": [0.5, -0.25],
    "f64 Float64": [0.1, -1e300],
    "b Bool": [True, False],
    "s String": ["", "naïve \N{SNOWMAN} ' \\ \t"],
    "fs FixedString(3)": [b"abc", b"x\x00\x00"],
    "d Date": [date(1970, 1, 1), date(2149, 6, 6)],
    "d32 Date32": [date(1900, 1, 1), date(2299, 12, 31)],
    "dt DateTime": [datetime(2013, 1, 1, 5, 15), datetime(2100, 1, 1)],
    "dt6 DateTime64(6)": [datetime(2013, 1, 1, 5, 15, 0, 123456), datetime(1999, 12, 31, 23, 59, 59, 999999)],
    "tz DateTime64(3, 'America/New_York')": [datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC)],
    "dec Decimal(38, 10)": [Decimal("12345678901234567890.0123456789"), Decimal("-0.0000000001")],
    "u UUID": [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)],
    "ip IPv4": [IPv4Address("127.0.0.1"), IPv4Address("8.8.8.8")],
    "e Enum8('a' = 1, 'b' = 2)": ["a", "b"],
    "n Nullable(Int32)": [None, 1],
    "ns Nullable(String)": ["x", None],
    "lc LowCardinality(Nullable(String))": ["x", None],
    "arr Array(Nullable(Int32))": [[1, None], []],
    "m Map(String, Int32)": [{"k": 1}, {}],
    "t Tuple(Int32, String)": [(1, "x"), (2, "y")],
}


def test_every_common_type_comes_back(client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (id Int32, {', '.join(VALUES)}) ENGINE = MergeTree ORDER BY id")
    columns = [name.split()[0] for name in VALUES]
    rows = [[i, *(values[i] for values in VALUES.values())] for i in (0, 1)]
    assert client.insert(table, rows, column_names=["id", *columns]).written_rows == 2
    got = client.query(f"SELECT {', '.join(columns)} FROM {table} ORDER BY id").result_columns
    for (name, expected), actual in zip(VALUES.items(), got, strict=True):
        assert list(actual) == expected, name


def test_ways_to_insert(server: Server, client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (n Int32, s String) ENGINE = MergeTree ORDER BY n")
    client.insert(table, [[1, 2], ["a", "b"]], column_names=["n", "s"], column_oriented=True)
    client.insert_df(table, pandas.DataFrame({"n": [3], "s": ["c"]}))
    client.insert_arrow(table, pyarrow.table({"n": pyarrow.array([4], pyarrow.int32()), "s": ["d"]}))
    client.raw_insert(table, ["n", "s"], b"5,e\n", fmt="CSV")
    client.raw_insert(table, ["n", "s"], gzip.compress(b"6,f\n"), fmt="CSV", compression="gzip")
    client.command(f"INSERT INTO {table} VALUES (7, 'g;'), ({{n:Int32}}, 'h')", parameters={"n": 8})
    client.command(f"INSERT INTO {table} SELECT 9, 'i'")
    assert server.http(f"INSERT INTO {table} FORMAT JSONEachRow", content='{"n":10,"s":"j"}').status_code == 200
    assert server.http(content=f"INSERT INTO {table} (s, n) FORMAT TSV\nk\t11\n").status_code == 200
    expected = [(n, s) for n, s in zip(range(1, 12), ["a", "b", "c", "d", "e", "f", "g;", "h", "i", "j", "k"], strict=True)]
    assert client.query(f"SELECT n, s FROM {table} ORDER BY n").result_rows == expected
    assert client.query_arrow(f"SELECT n FROM {table} ORDER BY n").column("n").to_pylist() == list(range(1, 12))
    assert client.query_df(f"SELECT s FROM {table} WHERE n = 1")["s"].tolist() == ["a"]
    with pytest.raises(DatabaseError, match="27"):
        client.raw_insert(table, ["n", "s"], b"x,y\n", fmt="CSV")
    assert client.command(f"SELECT count() FROM {table}") == 11


@pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", False])
def test_compression_both_ways(server: Server, table: str, method: str | bool) -> None:
    rows = [[i, f"row {i}"] for i in range(50_000)]
    with server.client(compress=method) as client:
        client.command(f"CREATE TABLE {table} (n Int32, s String) ENGINE = MergeTree ORDER BY n")
        client.insert(table, rows, column_names=["n", "s"])
        assert client.query(f"SELECT n, s FROM {table} ORDER BY n").result_rows == [tuple(row) for row in rows]
    answer = server.http(f"SELECT s FROM {table}", headers={"Accept-Encoding": str(method or "identity")})
    assert answer.headers.get("Content-Encoding", False) == method


def test_a_broken_compressed_body_is_an_error(server: Server) -> None:
    statement, cut_short = "INSERT INTO FUNCTION null('s String') FORMAT CSV", gzip.compress(b"x\n" * 99)[:-9]
    answer = server.http(statement, headers={"Content-Encoding": "gzip"}, content=cut_short)
    assert answer.headers["X-ClickHouse-Exception-Code"] == "271"
    answer = server.http("SELECT 1", headers={"Content-Encoding": "rar"}, content=b"x")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "89"


def test_sessions(server: Server) -> None:
    with server.client(session_id="keeps") as client:
        client.command("CREATE TEMPORARY TABLE mine (n Int32)")
        client.command("SET max_block_size = 1234")
        client.insert("mine", [[1]], column_names=["n"])
        assert client.query("SELECT n, getSetting('max_block_size') FROM mine").result_rows == [(1, 1234)]
    assert server.http("SELECT * FROM mine").headers["X-ClickHouse-Exception-Code"] == "60"
    assert server.http("SELECT 1", session_id="none", session_check="1").headers["X-ClickHouse-Exception-Code"] == "372"
    assert server.http("SELECT 1", session_id="keeps", session_timeout="9999").headers["X-ClickHouse-Exception-Code"] == "374"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.http, "SELECT sleep(1)", session_id="keeps")
        time.sleep(0.4)
        assert server.http("SELECT 1", session_id="keeps").headers["X-ClickHouse-Exception-Code"] == "373"
        assert slow.result().status_code == 200
    assert server.http("SELECT 1", session_id="brief", session_timeout="0").status_code == 200
    time.sleep(0.1)
    assert server.http("SELECT 1", session_id="brief", session_check="1").headers["X-ClickHouse-Exception-Code"] == "372"


def test_requests_run_in_parallel(server: Server) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.http(f"SELECT {n} + sleep(1)").text, range(16)))
    assert answers == [f"{n}\n" for n in range(16)]
    assert time.monotonic() - started < 6


SLOW = "SELECT sum(sleepEachRow(0.1)) FROM numbers(300) SETTINGS max_block_size = 1"


def test_a_query_can_be_killed(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.http, SLOW, query_id="slow one")
        time.sleep(0.5)
        again = server.http("SELECT 1", query_id="slow one")
        assert again.headers["X-ClickHouse-Exception-Code"] == "216"
        assert "waiting" in server.http(content="KILL QUERY WHERE query_id = 'slow one' ASYNC").text
        assert slow.result(10).headers["X-ClickHouse-Exception-Code"] == "394"


@pytest.mark.parametrize("result", ["sum(cityHash64(number))", "number"])
def test_a_client_that_goes_away_ends_its_query(server: Server, result: str) -> None:
    mark = f"left_{uuid.uuid4().hex}"
    request = {"content": f"SELECT {result} AS {mark} FROM numbers(1e12)", "auth": (USER, PASSWORD), "timeout": 1}
    with suppress(httpx.ReadTimeout), httpx.stream("POST", server.url, **request) as answer:
        next(answer.iter_raw())
    running = f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%system.processes%'"
    deadline = time.monotonic() + 10
    while server.http(running).text != "0\n":
        assert time.monotonic() < deadline, "the query still runs 10 s after its client left"
        time.sleep(0.2)


@pytest.mark.parametrize(("output_format", "rows"), [("Native", 8_000_000), ("ArrowStream", 8_000_000), ("JSON", 4_000_000)])
def test_a_big_result_is_streamed(server: Server, output_format: str, rows: int) -> None:
    statement = f"SELECT number, toString(number) AS s, number * 1.5 AS f FROM numbers({rows}) FORMAT {output_format}"
    before, highest, size = server.rss_bytes(), 0, 0
    headers = {"Accept-Encoding": "identity"}
    with httpx.stream("POST", server.url, content=statement, auth=(USER, PASSWORD), headers=headers, timeout=60) as answer:
        for index, piece in enumerate(answer.iter_raw(1 << 20)):
            size += len(piece)
            if index % 8 == 0:
                highest = max(highest, server.rss_bytes())
    assert size > 120_000_000
    assert highest - before < 110_000_000, f"{size} bytes of {output_format} took {highest - before} bytes of memory"


def test_waiting_for_the_end_gives_the_summary_and_the_error(server: Server) -> None:
    answer = server.http("SELECT number FROM numbers(3000000)", wait_end_of_query="1")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "3000000"
    assert answer.text.count("\n") == 3_000_000
    failed = server.http("SELECT throwIf(number = 2900000) FROM numbers(3000000)", wait_end_of_query="1")
    assert (failed.status_code, failed.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


def test_an_error_in_mid_stream_reaches_the_client(server: Server, client) -> None:
    statement = "SELECT number, throwIf(number = 3000000) FROM numbers(10000000)"
    with pytest.raises(httpx.RemoteProtocolError):
        server.http(statement)
    with pytest.raises(Exception, match="throwIf"), client.query_row_block_stream(statement) as stream:
        for _ in stream:
            pass


def test_a_big_insert_is_streamed(server: Server, client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    lines = b"".join(b"%d,0123456789012345678901234567890123456789\n" % n for n in range(20_000))
    before, highest, done = server.rss_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.05):
            highest = max(highest, server.rss_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    blocks = {"max_insert_block_size": "50000", "min_insert_block_size_rows": "50000", "min_insert_block_size_bytes": "0"}
    try:
        answer = server.http(f"INSERT INTO {table} FORMAT CSV", content=(lines for _ in range(200)), **blocks)
    finally:
        done.set()
        watcher.join()
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "4000000"
    assert client.command(f"SELECT count() FROM {table}") == 4_000_000
    assert highest - before < 140_000_000, f"{len(lines) * 200} bytes took {highest - before} bytes of memory"


def test_the_engines_memory_is_bounded(server: Server) -> None:
    answer = server.http("SELECT length(groupArray(number)) FROM numbers(500000000)")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "241"
    assert server.http("SELECT 1").text == "1\n"


def test_several_tables_are_exchanged_at_once(client) -> None:
    client.command("CREATE DATABASE swap ENGINE = Atomic")
    for n, name in enumerate("abcd"):
        client.command(f"CREATE TABLE swap.{name} ENGINE = MergeTree ORDER BY n AS SELECT {n} AS n")
    client.command("EXCHANGE TABLES swap.a AND swap.b, swap.c AND swap.d")
    assert [client.command(f"SELECT n FROM swap.{name}") for name in "abcd"] == [1, 0, 3, 2]
    client.command("DROP DATABASE swap")


def test_query_texts_and_the_password_are_not_logged(server: Server) -> None:
    server.http("SELECT 'hush-hush', nosuch", param_secret="hush-hush")
    server.http("SELECT 1", auth=None, user=USER, password="hush-hush")
    log = server.log.read_text()
    assert "hush-hush" not in log
    assert PASSWORD not in log
    assert "error=516" in log
    assert "Traceback" not in log


def test_a_second_process_on_the_same_data_is_refused(server: Server) -> None:
    second = server.spawn(free_port())
    assert second.wait(20) == 1
    assert f"{server.path}: the engine cannot open it" in server.log.read_text()
    assert server.http("SELECT 1").text == "1\n"


def test_data_outlive_a_kill_and_a_stop(server: Server) -> None:
    server.http(content="CREATE DATABASE kept ENGINE = Atomic")
    server.http(content="CREATE TABLE kept.t ENGINE = MergeTree ORDER BY number AS SELECT number FROM numbers(1000)")
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    server.start()
    assert server.http("SELECT count(), sum(number) FROM kept.t").text == "1000\t499500\n"
    server.http(content="INSERT INTO kept.t VALUES (1000)")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.http, SLOW)
        time.sleep(0.5)
        assert server.stop() == 0, server.log.read_text()
        with suppress(httpx.TransportError):
            assert slow.result(20).status_code == 500
    server.start()
    assert server.http("SELECT count() FROM kept.t").text == "1001\n"
