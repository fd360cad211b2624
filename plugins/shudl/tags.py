"""The tags that DAGs carry."""

from enum import StrEnum


class Tag(StrEnum):
    """What a DAG is about. Every DAG has at least one."""

    PLATFORM = "platform"
    CDC = "cdc"
    INGEST = "ingest"
    TRANSFORM = "transform"
    PROOF = "proof"
    DEMO = "demo"
    DRILL = "drill"
