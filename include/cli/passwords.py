"""The passwords that people may need."""

from __future__ import annotations

from include.cli.console import NOT_HEALTHY, CliError
from include.platform.settings import Settings, settings

NAMES = {
    "airflow": ("admin", "airflow_admin"),
    "postgres": ("flights", "postgres_flights"),
    "clickhouse": ("shudl", "clickhouse"),
    "s3": ("s3_access_key", "s3_secret_key"),
}
"""Service → its user and the name of the secret. For S3 the user is a secret too."""


def lookup(name: str, s: Settings = settings) -> tuple[str, str]:
    """User and password of a service. Raises :class:`CliError` while there is none."""
    user, secret = NAMES[name]
    if not (s.home / "secrets" / secret).exists():
        raise CliError(f"{name} has no password yet; ./shudl up makes one", NOT_HEALTHY)
    return (s.secret(user) if name == "s3" else user), s.secret(secret)
