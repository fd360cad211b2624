"""A PySpark application: writes the rows (n, text) for n from 1 to ROWS to a new Iceberg table, after a shuffle.

Usage: ``spark_check.py NAMESPACE TABLE ROWS``.
"""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

namespace, table, rows = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
spark.sql(f"CREATE NAMESPACE IF NOT EXISTS lake.{namespace}")
numbers = spark.range(1, int(rows) + 1, numPartitions=2).repartition(2)
numbers.selectExpr("id AS n", "concat('n', id) AS text").writeTo(f"lake.{namespace}.{table}").create()
print(spark.version)
spark.stop()
