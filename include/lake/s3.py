"""The S3 server, for what Python reads and writes there itself; engines get their settings from :mod:`include.lake.catalog`."""

from __future__ import annotations

from typing import Any

from include.lake.catalog import REGION
from include.platform.endpoints import Endpoint


def s3_client(endpoint: Endpoint, connect_s: float = 5, read_s: float = 60, attempts: int = 3) -> Any:
    """A boto3 client that gives up after so long, and so many attempts."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=REGION,
        aws_access_key_id=endpoint.login,
        aws_secret_access_key=endpoint.password,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"max_attempts": attempts},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def ensure_buckets(s3: Any, *names: str) -> None:
    """Make the buckets that are not there."""
    present = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in names:
        if name not in present:
            s3.create_bucket(Bucket=name)
