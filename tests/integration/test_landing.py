"""Files become rows, on the real S3 server and the real catalogue: once, whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingest import deadletters, landing, landing_bucket, landing_table
from include.ingest.deadletters import IngestError
from include.lake.catalog import LANDING, Lake, existing
from include.lake.s3 import s3_client
from include.platform.airflow import AirflowClient
from include.platform.checks import NotHealthy, healthy, works
from include.platform.endpoints import Endpoints, local_endpoints
from include.platform.settings import ROOT, settings
from include.platform.supervisor import Supervisor
from tests.integration.landing_child import POINTS

CHILD = Path(__file__).with_name("landing_child.py")
ROWS = 3000
OWN = ("_file", "_version", "_line", "_loaded_at")


class Landing:
    """One folder of the bucket, and its table."""

    def __init__(self, endpoints: Endpoints, folder: str) -> None:
        self.endpoints, self.folder = endpoints, folder
        self.lake = Lake.from_endpoints(endpoints)
        self.table = f"raw.{landing.table_name(folder)}"

    def put(self, name: str, data: bytes | str) -> str:
        return landing.put(self.endpoints, self.folder, name, io.BytesIO(data.encode() if isinstance(data, str) else data))

    def options(self, **options: Any) -> None:
        path = settings.pipelines / f"landing_{landing.table_name(self.folder)}.yml"
        path.write_text(json.dumps({"kind": "landing", "source": self.folder, **options}))

    def load(self) -> landing.Report:
        return landing.load(self.endpoints, self.folder, "test")

    def rows(self, *columns: str, own: bool = False) -> list[Any]:
        """The table's rows by file and line."""
        table = existing(self.lake.pyiceberg(), self.table)
        if table is None:
            return []
        found = sorted(table.scan().to_arrow().to_pylist(), key=lambda row: (row["_file"], row["_version"], row["_line"]))
        if columns:
            return [tuple(row[name] for name in columns) for row in found]
        return found if own else [{key: value for key, value in row.items() if key not in OWN} for row in found]

    def lines(self) -> list[dict[str, Any]]:
        """The ledger's lines of the folder."""
        found = landing_table.ledger(self.lake.pyiceberg()).scan().to_arrow().to_pylist()
        mine = [row for row in found if row["path"].startswith(f"{self.folder}/")]
        return sorted(mine, key=lambda row: (row["path"], row["version"]))

    def dead(self) -> list[deadletters.DeadLetter]:
        return sorted(deadletters.open_of(self.lake, self.table), key=lambda letter: letter.position)


@pytest.fixture(scope="module")
def stores() -> Iterator[Endpoints]:
    """S3 and the catalogue, started where the platform of the session has not."""
    endpoints, supervisor = local_endpoints(), Supervisor()
    ours = not supervisor.running()
    if not ours:
        _pause(True)
    supervisor.launch()
    for name in ("s3", "nessie"):
        supervisor.start(name)
        deadline = time.monotonic() + 300
        while True:
            try:
                healthy(name, endpoints)
                break
            except NotHealthy:
                assert time.monotonic() < deadline, f"{name} is not healthy"
                time.sleep(0.5)
        if name == "s3":
            works(name, endpoints)  # makes the buckets
    yield endpoints
    for path in settings.pipelines.glob("landing_*.yml"):
        path.unlink()
    s3 = s3_client(endpoints["shudl_s3"])
    for file in landing_bucket.listing(s3):
        s3.delete_object(Bucket=LANDING, Key=file.path)
    if ours:
        supervisor.shutdown()
    else:
        _pause(False)


def _pause(paused: bool) -> None:
    """Keep the session's Airflow, where it runs, from loading what these tests put into the bucket."""
    with AirflowClient() as airflow:
        if not airflow.health():
            return
        if not paused:
            airflow.unpause("ingest_landing")
            return
        airflow.pause("ingest_landing")
        deadline = time.monotonic() + 120
        while any(run["state"] == "running" for run in airflow.runs("ingest_landing")):
            assert time.monotonic() < deadline, "ingest_landing goes on"
            time.sleep(1)


@pytest.fixture
def folder(stores: Endpoints, request: pytest.FixtureRequest) -> Landing:
    name = request.node.name.removeprefix("test_").partition("[")[0]
    return Landing(stores, f"{name}_{time.monotonic_ns() % 10**6}")


def flights(count: int, bad: tuple[int, ...] = ()) -> bytes:
    """A CSV file; the rows ``bad`` have a value too many."""
    return b"id,carrier,day\n" + b"".join(
        b"%d,c%d,2013-01-%02d%s\n" % (n, n % 7, n % 28 + 1, b",more" if n in bad else b"") for n in range(count)
    )


def test_formats(folder: Landing) -> None:
    parquet = io.BytesIO()
    pq.write_table(pa.table({"ID": pa.array([5], pa.int32()), "extra": [[1]]}), parquet)
    folder.put("a.csv", "id,name\n1,x\n")
    folder.put("b.csv.gz", gzip.compress(b"NAME;ID\ny;2\n"))
    folder.put("c.jsonl.gz", gzip.compress(b'{"id":3,"name":"z"}\n'))
    folder.put("deeper/d.csv", "4,w\n")
    folder.put("e.parquet", parquet.getvalue())
    report = folder.load()
    assert not report.failed and report.tables == [folder.table]
    assert folder.rows("id", "name", "extra", "_line", "_version") == [
        (1, "x", None, 2, 1),
        (2, "y", None, 2, 1),
        (3, "z", None, 1, 1),
        (4, "w", None, 1, 1),
        (5, None, "[1]", 1, 1),
    ]
    assert {row["_file"] for row in folder.rows(own=True)} == {line["path"] for line in folder.lines()}
    assert not folder.load().files and len(folder.rows()) == 5
    assert landing.due(folder.endpoints)[0].get(folder.folder) is None


def test_objects(folder: Landing) -> None:
    body = b"%PDF-1.7 " + bytes(range(256))
    path = folder.put("paper.pdf", body)
    assert folder.load().tables == [landing.OBJECTS]
    found = folder.lake.pyiceberg().load_table(landing.OBJECTS).scan(f"path = '{path}'").to_arrow().to_pylist()
    assert [(row["size"], row["sha256"], row["content_type"], row["_version"]) for row in found] == [
        (len(body), hashlib.sha256(body).hexdigest(), "application/pdf", 1)
    ]
    assert not folder.load().files


def test_two_runs_at_once_load_once(folder: Landing) -> None:
    folder.put("a.csv", flights(ROWS))
    folder.load()
    folder.put("b.csv", flights(ROWS))
    with ThreadPoolExecutor(3) as pool:
        reports = [future.result() for future in [pool.submit(folder.load) for _ in range(3)]]
    assert sum(len(report.files) for report in reports) == 1
    assert len(folder.rows()) == 2 * ROWS and len(folder.lines()) == 2


ON_DEMAND = pytest.mark.skipif(not os.environ.get("SHUDL_INGEST_TESTS"), reason="on demand: make test-ingest")
ALWAYS = ("rows are written", "before the commit", "after the commit")


@pytest.mark.parametrize("point", [point if point in ALWAYS else pytest.param(point, marks=ON_DEMAND) for point in POINTS])
def test_killed(folder: Landing, point: str) -> None:
    folder.options(dead_letters={"share": 0.1})
    folder.put("first.csv", flights(10))
    folder.load()
    folder.put("a.csv", flights(ROWS, bad=(5, 77)))
    done = subprocess.run(
        [sys.executable, str(CHILD), folder.folder, point],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == -9, done.stderr
    committed = point in ("after the commit", "at the end")
    assert len(folder.rows()) == 10 + (ROWS - 2 if committed else 0)
    assert [line["path"].partition("/")[2] for line in folder.lines()] == (["a.csv"] if committed else []) + ["first.csv"]
    folder.load()
    rows = [row for row in folder.rows("id", "_line", "_file") if row[2].endswith("a.csv")]
    assert rows == [(n, n + 2, f"{folder.folder}/a.csv") for n in range(ROWS) if n not in (5, 77)]
    assert [letter.position for letter in folder.dead()] == [7, 79] and len(folder.lines()) == 2


def test_a_new_version_takes_the_place_of_the_old_one(folder: Landing) -> None:
    folder.put("a.csv", "id,name\n1,x\n2,y\n")
    folder.put("b.csv", "id,name\n9,z\n")
    folder.load()
    folder.put("a.csv", "name,id,more\nX,1,true\n")
    assert [file["version"] for file in folder.load().files] == [2]
    assert folder.rows("id", "name", "more", "_version") == [(1, "X", True, 2), (9, "z", None, 1)]
    folder.put("a.csv", "id,name\n1,x\n2,y\n")  # what it once was is a third version
    assert [file["version"] for file in folder.load().files] == [3]
    assert folder.rows("id", "name", "_version") == [(1, "x", 3), (2, "y", 3), (9, "z", 1)]
    folder.put("a.csv", "")
    folder.load()
    assert folder.rows("id") == [(9,)]


def test_all_versions_stay_where_they_shall(folder: Landing) -> None:
    folder.options(versions="all")
    folder.put("a.csv", "id,name\n1,x\n")
    folder.load()
    folder.put("a.csv", "id,name\n1,y\n")
    folder.load()
    assert folder.rows("id", "name", "_version") == [(1, "x", 1), (1, "y", 2)]


def test_too_many_dead_letters_leave_the_table_as_it_was(folder: Landing) -> None:
    folder.put("a.csv", "id,name\n1,x\n")
    folder.load()
    folder.put("b.csv", "id,name\n2,y\nthree,z\nfour,z\n")
    folder.put("c.csv", "id,name\n5,v\n")
    report = folder.load()
    (reason,) = report.failed.values()
    assert "2 of 3 rows are dead letters" in reason
    with pytest.raises(IngestError, match=r"b\.csv: .*2 of 3 rows"):
        landing.verdict([vars(report)], [])
    assert folder.rows("id") == [(1,), (5,)]
    assert [(letter.position, letter.raw) for letter in folder.dead()] == [(3, b"three,z"), (4, b"four,z")]
    assert not deadletters.replay(folder.endpoints, folder.table, "test").written, "they come with the file"
    folder.put("b.csv", "id,name\n2,y\n3,z\n4,z\n")
    assert not folder.load().failed
    assert folder.rows("id") == [(1,), (2,), (3,), (4,), (5,)] and not folder.dead()


def test_dead_letters_are_replayed_once_after_a_fix(folder: Landing) -> None:
    folder.options(dead_letters={"rows": 2})
    folder.put("a.csv", "id,name\n1,x\n2,\u00e4\n3,y,z\n".encode("latin-1"))
    folder.load()
    assert [letter.position for letter in folder.dead()] == [3, 4]
    folder.options(dead_letters={"rows": 2}, encoding="latin-1")
    letters = folder.dead()
    counts = deadletters.replay(folder.endpoints, folder.table, "test")
    assert (counts.read, counts.written, counts.dead) == (2, 1, 1)
    from include.ingest import files

    assert files.replay(folder.endpoints, folder.table, letters, "again") == {letters[0].id}, "a row already: settled"
    assert folder.rows("id", "name", "_line") == [(1, "x", 2), (2, "ä", 3)]
    assert [letter.position for letter in folder.dead()] == [4]


def test_bad_files_leave_the_table_as_it_was(folder: Landing) -> None:
    folder.put("a.csv", "id,name\n1,x\n")
    folder.load()
    before = folder.rows(own=True)
    folder.put("cut.csv.gz", gzip.compress(flights(9999))[:-500])
    folder.put("cut.parquet", b"PAR1 and no more")
    folder.put("twice.csv", "id,ID\n1,2\n")
    folder.put("ours.csv", "id,_file\n1,2\n")
    folder.put("empty.csv", "")
    folder.put("header.csv", "id,name\n")
    report = folder.load()
    reasons = {path.partition("/")[2]: reason for path, reason in report.failed.items()}
    assert "breaks off in the middle" in reasons["cut.csv.gz"] and "no whole Parquet file" in reasons["cut.parquet"]
    assert "columns id and ID both become id" in reasons["twice.csv"] and "ShuDL adds" in reasons["ours.csv"]
    assert sorted(file["path"].partition("/")[2] for file in report.files) == ["empty.csv", "header.csv"]
    assert folder.rows(own=True) == before and folder.load().failed == report.failed


def test_a_wider_type_is_told_and_not_guessed(folder: Landing) -> None:
    folder.put("a.csv", "id,amount\n1,5\n")
    folder.load()
    folder.put("b.csv", "id,amount\n2,5.5\n")
    assert "dead letters" in next(iter(folder.load().failed.values()))
    folder.options(types={"amount": "double"})
    assert "amount is int64 and types says double; drop the table" in next(iter(folder.load().failed.values()))
    folder.lake.pyiceberg().drop_table(folder.table)
    assert not folder.load().failed
    assert folder.rows("id", "amount", "_version") == [(1, 5.0, 1), (2, 5.5, 1)] and not folder.dead()


def test_names_that_collide_are_refused(stores: Endpoints, folder: Landing) -> None:
    other = Landing(stores, folder.folder.replace("_", " ").title())
    for one in (folder, other):
        one.put("a.csv", "id\n1\n2\n")
    s3_client(stores["shudl_s3"]).put_object(Bucket=LANDING, Key="lost.csv", Body=b"a\n1\n")
    Landing(stores, "Objects").put("a.csv", "id\n1\n")
    due, problems = landing.due(stores)
    assert folder.folder not in due and other.folder not in due and "Objects" not in due
    text = "\n".join(problems)
    assert f"folders {other.folder} and {folder.folder} would both be {folder.table}" in text
    assert "lost.csv lies in no folder" in text and "folder Objects would be raw.objects, which is ShuDL's own" in text
    folder.load()
    (reason,) = other.load().failed.values()
    assert f"has the files of folder {folder.folder}" in reason
    s3 = s3_client(stores["shudl_s3"])
    for path in ("lost.csv", "Objects/a.csv", f"{other.folder}/a.csv"):
        s3.delete_object(Bucket=LANDING, Key=path)


def test_a_table_of_somebody_else_is_left_alone(folder: Landing) -> None:
    folder.lake.pyiceberg().create_namespace_if_not_exists("raw")
    folder.lake.pyiceberg().create_table(folder.table, pa.schema([("id", pa.int64())]))
    folder.put("a.csv", "id\n1\n2\n")
    assert "was not made from files; rename the folder" in next(iter(folder.load().failed.values()))


def test_a_broken_pipeline_file_stops_its_folder(stores: Endpoints, folder: Landing) -> None:
    folder.put("a.csv", "id\n1\n")
    folder.options(delimeter=";")
    due, problems = landing.due(stores)
    assert folder.folder not in due and any("delimeter" in problem for problem in problems)
    with pytest.raises(IngestError, match="delimeter"):
        folder.load()


def test_the_ledger_stays_small(folder: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_table, "LEDGER_FILES", 2)
    for n in range(3):
        folder.put(f"{n}.csv", f"id,name\n{n},x\n")
        folder.load()
    table = landing_table.ledger(folder.lake.pyiceberg())
    assert int(table.metadata.current_snapshot().summary.additional_properties["total-data-files"]) <= 2
    assert [line["version"] for line in folder.lines()] == [1, 1, 1] and not folder.load().files


@ON_DEMAND
def test_a_line_of_two_gigabytes(folder: Landing) -> None:
    folder.options(dead_letters={"rows": 1})
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(b"id,name\n1,x\n")
        for _ in range(2048):
            file.write(b"y" * (1 << 20))
        file.write(b"\n3,z\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    folder.put("huge.csv.gz", packed.getvalue())
    report = folder.load()
    assert not report.failed and folder.rows("id", "_line") == [(1, 2), (3, 4)]
    (letter,) = folder.dead()
    assert letter.position == 3 and "longer than 16 MiB" in letter.reason
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 600, f"took {grown_mb:.0f} MB"
