"""The lake's catalogue settings, stated once and rendered for each engine.

Every engine speaks Iceberg REST to Nessie and reads S3 with path-style addresses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from include.platform.endpoints import Endpoints

if TYPE_CHECKING:
    from pyiceberg.catalog.rest import RestCatalog
    from pyiceberg.table import Table

WAREHOUSE = "lake"
BUCKET = os.environ.get("LAKE_BUCKET") or "lake"
LOCATION = f"s3://{BUCKET}/wh"
REGION = os.environ.get("LAKE_S3_REGION") or "us-east-1"
BRANCH = "main"
LANDING = "landing"
"""The bucket into which files are put that become rows of the lake."""
PUBLISHED = "published"
"""The Nessie branch that stays at the commit which ClickHouse's tables were copied from."""


@dataclass(frozen=True)
class Lake:
    """One catalogue and its storage."""

    nessie_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str = field(repr=False)

    @classmethod
    def from_endpoints(cls, endpoints: Endpoints) -> Lake:
        s3 = endpoints["shudl_s3"]
        return cls(endpoints["shudl_nessie"].url, s3.url, s3.login, s3.password)

    @property
    def catalog_uri(self) -> str:
        return f"{self.nessie_url}/iceberg"

    def flink_catalog(self, name: str = "lake") -> str:
        """Flink SQL that makes the catalogue. The S3 keys come from the environment of Flink's processes."""
        options = {
            "type": "iceberg",
            "catalog-type": "rest",
            "uri": f"{self.catalog_uri}/",
            "warehouse": WAREHOUSE,
            "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "s3.endpoint": self.s3_endpoint,
            "s3.path-style-access": "true",
            "client.region": REGION,
            "cache-enabled": "false",
        }
        pairs = ", ".join(f"'{key}'='{value}'" for key, value in options.items())
        return f"CREATE CATALOG {name} WITH ({pairs})"

    def spark_conf(self, name: str = "lake") -> dict[str, str]:
        """Spark's settings for the catalogue, its default one. They hold the S3 keys: for a private file, no command line."""
        options = {
            "type": "rest",
            "uri": f"{self.catalog_uri}/{BRANCH}",
            "warehouse": WAREHOUSE,
            "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "s3.endpoint": self.s3_endpoint,
            "s3.access-key-id": self.s3_access_key,
            "s3.secret-access-key": self.s3_secret_key,
            "s3.path-style-access": "true",
            "client.region": REGION,
            "cache-enabled": "false",
        }
        catalog = f"spark.sql.catalog.{name}"
        return {
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.iceberg.compression-codec": "zstd",
            "spark.sql.defaultCatalog": name,
            catalog: "org.apache.iceberg.spark.SparkCatalog",
            **{f"{catalog}.{key}": value for key, value in options.items()},
        }

    def hadoop_conf(self) -> dict[str, str]:
        """Spark's settings for files of its own in the lake's storage (``s3a://``), such as checkpoints. They hold the keys."""
        options = {
            "endpoint": self.s3_endpoint,
            "endpoint.region": REGION,
            "access.key": self.s3_access_key,
            "secret.key": self.s3_secret_key,
            "path.style.access": "true",
        }
        return {
            "spark.hadoop.fs.AbstractFileSystem.s3a.impl": "org.apache.hadoop.fs.s3a.S3A",
            **{f"spark.hadoop.fs.s3a.{key}": value for key, value in options.items()},
        }

    def pyiceberg(self, ref: str = BRANCH) -> RestCatalog:
        """PyIceberg's catalogue at ``ref``: a branch, a tag, or ``branch@hash``."""
        from pyiceberg.catalog.rest import RestCatalog

        return RestCatalog(
            "lake",
            uri=f"{self.catalog_uri}/{ref}",
            warehouse=WAREHOUSE,
            **{
                "s3.endpoint": self.s3_endpoint,
                "s3.access-key-id": self.s3_access_key,
                "s3.secret-access-key": self.s3_secret_key,
                "s3.region": REGION,
                "s3.path-style-access": "true",
            },
        )

    def http_url(self, location: str) -> str:
        """``s3://bucket/key`` as the path-style URL that ClickHouse reads."""
        return location.replace("s3://", f"{self.s3_endpoint}/", 1)


def existing(catalog: RestCatalog, name: str) -> Table | None:
    """The table; None where there is none."""
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        return None
