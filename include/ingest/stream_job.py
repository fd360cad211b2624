"""A PySpark application: topics of Kafka into Iceberg tables, by Structured Streaming, until what is there has been read.

Usage: ``stream_job.py JOB RESULT``: JOB is a JSON file as :func:`include.ingest.stream.job` makes it, RESULT the file that gets
what became of each table.

Each batch is written exactly once. First its dead letters, each under an id of its own; then its rows, in one Iceberg commit
whose snapshot says up to which offset the table is complete (``shudl.offset.<partition>``). A batch that comes again, as after
a kill, is cut to what is beyond that offset; so does a stream whose checkpoint was lost. See docs/adr/0023-kafka-to-iceberg.md.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import traceback
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as f
from pyspark.sql.avro.functions import from_avro
from pyspark.storagelevel import StorageLevel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from include.ingest.stream_schema import Incompatible, merged

PROPERTY = "shudl.offset."
SNAPSHOT_PROPERTY = "spark.sql.iceberg.snapshot-property."
WIDENED = {("int", "bigint"), ("float", "double")}
TABLE_PROPERTIES = (
    "TBLPROPERTIES ('format-version'='2', 'write.merge.mode'='merge-on-read', 'write.parquet.compression-codec'='zstd', "
    "'commit.retry.num-retries'='20')"
)
AT_ONCE = 2


class JobError(RuntimeError):
    """What keeps a table from being written, in words."""


class Registry:
    def __init__(self, url: str, ca: str) -> None:
        self._url, self._tls = url, ssl.create_default_context(cafile=ca or None) if url.startswith("https") else None

    def versions(self, subject: str) -> dict[int, dict[str, Any]]:
        """The subject's schemas by id, the oldest first."""
        found = {}
        for number in self._get(f"/subjects/{subject}/versions"):
            version = self._get(f"/subjects/{subject}/versions/{number}")
            found[version["id"]] = json.loads(version["schema"])
        return found

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=30, context=self._tls) as answer:
            return json.load(answer)


class Table:
    """One stream: its topic, its table, and what this run did."""

    def __init__(self, spark: SparkSession, job: dict[str, Any], stream: dict[str, Any]) -> None:
        self.spark, self.job, self.stream = spark.newSession(), job, stream
        self.name, self.key = f"lake.{stream['table']}", stream["key"]
        self.counts = {"read": 0, "written": 0, "dead": 0, "batches": 0, "again": 0}
        self.changes: list[str] = []
        self.registry = Registry(job["registry"], job["registry_ca"])
        self.fault = job.get("fault", "")
        self.session = self.spark
        self.error: Exception | None = None

    def run(self) -> None:
        reader = self.spark.readStream.format("kafka").options(**self.job["kafka"]).option("subscribe", self.stream["topic"])
        if committed := self.committed():
            reader = reader.option("startingOffsets", json.dumps({self.stream["topic"]: committed}))
        else:
            reader = reader.option("startingOffsets", "earliest")
        query = (
            reader.option("maxOffsetsPerTrigger", self.job["batch_rows"])
            .option("minPartitions", self.job["read_tasks"])
            .option("includeHeaders", "true")
            .option("kafka.isolation.level", "read_committed")
            .option("failOnDataLoss", "true")
            .load()
            .writeStream.queryName(self.stream["table"])
            .foreachBatch(self.batch)
            .option("checkpointLocation", self.stream["checkpoint"])
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()

    def batch(self, records: DataFrame, number: int) -> None:
        try:
            self._batch(records)
        except Exception as error:
            self.error = error  # what Spark says of it has no words of its own
            raise

    def _batch(self, records: DataFrame) -> None:
        self.session = records.sparkSession
        decoded = self.decoded(records)
        committed = self.committed()
        for partition, offset in committed.items():
            decoded = decoded.where(~((f.col("partition") == int(partition)) & (f.col("offset") < offset)))
        decoded = decoded.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            self.write(decoded, committed)
        finally:
            decoded.unpersist()
        self.counts["batches"] += 1

    def write(self, decoded: DataFrame, committed: dict[str, int]) -> None:
        seen = decoded.groupBy("partition").agg(
            f.count(f.lit(1)).alias("read"),
            f.sum(f.col("reason").isNotNull().cast("long")).alias("dead"),
            (f.max("offset") + 1).alias("end"),
        )
        by_partition = {row["partition"]: row for row in seen.collect()}
        read, dead = sum(r["read"] for r in by_partition.values()), sum(r["dead"] for r in by_partition.values())
        if not read:
            self.counts["again"] += 1
            return
        ends = {**committed, **{str(partition): row["end"] for partition, row in by_partition.items()}}
        if dead:
            kept = self.keep(decoded.where("reason IS NOT NULL"))
            if kept != dead:
                raise JobError(f"{self.stream['table']}: {dead} dead letters were to be kept, the table has {kept} of them")
        self.fail_if("before")
        rows = decoded.where("reason IS NULL").select(
            "row.*",
            f.current_timestamp().alias("_loaded_at"),
            f.col("partition").alias("_kafka_partition"),
            f.col("offset").alias("_kafka_offset"),
        )
        columns = self.session.table(self.name).schema.fields
        rows = rows.select(
            *(
                (f.col(c.name) if c.name in rows.columns else f.lit(None)).cast(c.dataType).alias(c.name)
                for c in columns
            )
        )
        said = {f"{PROPERTY}{partition}": str(end) for partition, end in ends.items()}
        for name, value in said.items():
            self.session.conf.set(f"{SNAPSHOT_PROPERTY}{name}", value)
        written = read - dead
        if self.key and written:
            wanted = self.merge(rows)
        else:
            rows.writeTo(self.name).append()  # without rows too: the commit says how far the table is
            wanted = written
        for name in said:
            self.session.conf.unset(f"{SNAPSHOT_PROPERTY}{name}")
        if (added := self.added(said)) != wanted:
            raise JobError(f"{self.stream['table']}: {wanted} rows were to be written, the commit has {added}")
        self.fail_if("after")
        self.counts["read"] += read
        self.counts["written"] += written
        self.counts["dead"] += dead

    def merge(self, rows: DataFrame) -> int:
        """The latest row of each key replaces the table's, unless that is later still. How many keys there are."""
        latest = Window.partitionBy(*self.key).orderBy(f.col("_kafka_partition").desc(), f.col("_kafka_offset").desc())
        rows = rows.withColumn("_rank", f.row_number().over(latest)).where("_rank = 1").drop("_rank")
        rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            keys = rows.count()
            rows.createOrReplaceTempView("latest")
            same = " AND ".join(f"t.`{column}` <=> s.`{column}`" for column in self.key)
            columns = ", ".join(f"`{column}`" for column in rows.columns)
            values = ", ".join(f"s.`{column}`" for column in rows.columns)
            updates = ", ".join(f"`{column}` = s.`{column}`" for column in rows.columns)
            self.session.sql(
                f"MERGE INTO {self.name} t USING latest s ON {same} "
                f"WHEN MATCHED AND s._kafka_offset > t._kafka_offset THEN UPDATE SET {updates} "
                f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
            )
            return keys
        finally:
            rows.unpersist()

    def decoded(self, records: DataFrame) -> DataFrame:
        """``partition, offset, value, row, reason``: a record is a row, or has a reason why it is none."""
        subject = f"{self.stream['topic']}-value"
        versions = self.registry.versions(subject)
        try:
            schema = merged(versions.values())
        except Incompatible as error:
            raise JobError(f"subject {subject}: {error}; give the stream another table") from None
        reader = json.dumps(schema)
        body, wire_id = f.expr("substring(value, 6)"), f.expr("cast(conv(hex(substring(value, 2, 4)), 16, 10) AS BIGINT)")
        row: Column = f.lit(None)
        for schema_id, version in versions.items():
            options = {"mode": "PERMISSIVE", "avroSchema": reader}
            row = f.when(wire_id == schema_id, from_avro(body, json.dumps(version), options)).otherwise(row)
        wire = f.expr("length(value) > 5 AND substring(value, 1, 1) = X'00'")
        told = f.expr("cast(element_at(filter(headers, h -> h.key = 'shudl.reason'), 1).value AS STRING)")
        parts = {"told": told, "id": wire_id, "row": f.when(wire, row), "wire": wire}
        decoded = records.select("partition", "offset", "value", *(part.alias(name) for name, part in parts.items()))
        known = ", ".join(map(str, versions))
        reason = (
            f.when(f.col("row._emitted_at").isNotNull(), f.lit(None))
            .when(f.col("value").isNull(), f.lit("the record has no value"))
            .when(~f.col("wire"), f.coalesce("told", f.lit("the value does not begin as the schema registry's format does")))
            .when(~f.col("id").isin(*versions), f.concat(f.lit("schema "), "id", f.lit(f" is none of {subject}: {known}")))
            .otherwise(f.concat(f.lit("the value cannot be read with schema "), "id"))
        )
        self.evolve(decoded.select("row.*"))
        return decoded.select("partition", "offset", "value", "row", reason.alias("reason"))

    def evolve(self, rows: DataFrame) -> None:
        """Make the table, or give it the columns that it lacks and the types that are wider now."""
        own = {"_loaded_at": "timestamp", "_kafka_partition": "int", "_kafka_offset": "bigint"}
        wanted = {**{field.name: field.dataType.simpleString() for field in rows.schema.fields}, **own}
        if not self.exists():
            self.session.sql(f"CREATE NAMESPACE IF NOT EXISTS lake.{self.stream['table'].partition('.')[0]}")
            columns = ", ".join(f"`{name}` {kind}" for name, kind in wanted.items())
            self.session.sql(f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) USING iceberg {TABLE_PROPERTIES}")
            self.changes.append(f"made table {self.stream['table']}")
            return
        have = {field.name: field.dataType.simpleString() for field in self.session.table(self.name).schema.fields}
        deeds, problems = [], []
        for name, kind in wanted.items():
            if name not in have:
                deeds.append((f"ADD COLUMN `{name}` {kind}", f"added {self.stream['table']}.{name} {kind}"))
            elif (have[name], kind) in WIDENED:
                deeds.append((f"ALTER COLUMN `{name}` TYPE {kind}", f"widened {self.stream['table']}.{name} to {kind}"))
            elif have[name] != kind and (kind, have[name]) not in WIDENED:
                problems.append(f"column {name} is {have[name]}, the stream has {kind}")
        if problems:
            raise JobError(f"{self.stream['table']}: {'; '.join(problems)}; give the stream another table")
        for deed, said in deeds:
            self.session.sql(f"ALTER TABLE {self.name} {deed}")
            self.changes.append(said)

    def keep(self, dead: DataFrame) -> int:
        """Keep dead letters, each once; how many of them the table has."""
        where = ("kafka", self.stream["table"], self.stream["topic"])
        parts = [*(f.lit(text) for text in where), f.col("partition").cast("string"), f.col("offset").cast("string")]
        letters = dead.select(
            f.sha2(f.concat_ws("\n", *parts), 256).alias("id"),
            f.lit(where[0]).alias("kind"),
            f.lit(where[1]).alias("target"),
            f.lit(where[2]).alias("origin"),
            f.col("partition").cast("string").alias("part"),
            f.col("offset").alias("position"),
            f.coalesce("value", f.lit(b"")).alias("raw"),
            "reason",
            f.current_timestamp().alias("first_seen"),
            f.lit(self.job["run"]).alias("run"),
            f.lit("open").alias("state"),
        )
        letters.createOrReplaceTempView("letters")
        table, columns = f"lake.{self.job['dead_letters']}", ", ".join(letters.columns)
        values = ", ".join(f"s.{column}" for column in letters.columns)
        self.session.sql(
            f"MERGE INTO {table} t USING letters s ON t.id = s.id WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
        )
        return self.session.sql(f"SELECT count(*) FROM {table} t LEFT SEMI JOIN letters s ON t.id = s.id").collect()[0][0]

    def exists(self) -> bool:
        return self.session.catalog.tableExists(self.name)

    def committed(self) -> dict[str, int]:
        """The offset up to which the table is complete, by partition: of its newest snapshot that says it, else of its rows."""
        if not self.exists():
            return {}
        for summary in self.summaries():
            if found := {k.removeprefix(PROPERTY): int(v) for k, v in summary.items() if k.startswith(PROPERTY)}:
                return found
        ends = f"SELECT _kafka_partition AS p, max(_kafka_offset) + 1 AS o FROM {self.name} GROUP BY 1"
        return {str(row["p"]): row["o"] for row in self.session.sql(ends).collect()}

    def added(self, said: dict[str, str]) -> int:
        """Rows that the newest snapshot which says so added; -1 where there is none."""
        for summary in self.summaries():
            if said.items() <= summary.items():
                return int(summary.get("added-records", 0))
        return -1

    def summaries(self) -> Iterator[dict[str, str]]:
        """What the table's snapshots say of themselves, the newest first. Iceberg is asked: a query would take Spark a second."""
        iceberg = self.session._jvm.org.apache.iceberg.spark
        table = iceberg.Spark3Util.loadIcebergTable(self.session._jsparkSession, self.name)
        table.refresh()
        snapshot = table.currentSnapshot()
        while snapshot is not None:
            yield dict(snapshot.summary())
            parent = snapshot.parentId()
            snapshot = None if parent is None else table.snapshot(parent)

    def fail_if(self, where: str) -> None:
        """Tests kill the driver here, by the job's ``fault``: ``raw.users:after``."""
        if self.fault == f"{self.stream['table']}:{where}":
            os.kill(os.getpid(), 9)


def main(job_file: str, result_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    spark = SparkSession.builder.getOrCreate()

    def run(stream: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        table = Table(spark, job, stream)
        try:
            table.run()
        except Exception as error:
            traceback.print_exc()
            return stream["table"], {**table.counts, "changes": table.changes, "error": words(table.error or error)}
        return stream["table"], {**table.counts, "changes": table.changes}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(pool.map(run, job["streams"]))
    Path(result_file).write_text(json.dumps(found))
    spark.stop()


def words(error: BaseException) -> str:
    """An error's first cause, one line."""
    lines = [line.lstrip(": ") for line in str(error).splitlines() if not line.startswith("An error occurred while calling ")]
    lines = lines or [type(error).__name__]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return " ".join((lines[0] if not causes else causes[-1].removeprefix("Caused by: ")).split())[:1000]


if __name__ == "__main__":
    main(*sys.argv[1:])
