"""The proof that PostgreSQL, Iceberg and ClickHouse hold the same rows."""

from include.proof.prove import prove
from include.proof.report import Comparison, Report
from include.proof.stores import ProofError

__all__ = ["Comparison", "ProofError", "Report", "prove"]
