"""The passwords that people may need."""

from __future__ import annotations

from include.cli.console import ME, NOT_HEALTHY, USAGE, CliError
from include.platform.settings import Settings, settings

NAMES = {
    "airflow": ("admin", "airflow_admin"),
    "postgres": ("flights", "postgres_flights"),
    "clickhouse": ("shudl", "clickhouse"),
    "s3": ("s3_access_key", "s3_secret_key"),
    "trino": ("shudl", "trino"),
    "keycloak": ("admin", "keycloak_admin"),
    "keycloak-user": ("admin", "oidc_admin"),
    "grafana": ("admin", "grafana_admin"),
    "kafka-ui": ("admin", "kafka_ui_login"),
}
"""Service → its user and the name of the secret. For S3 the user is a secret too; ``keycloak-user`` is the realm's first user."""

SERVER = ("trino", "keycloak", "keycloak-user", "grafana", "kafka-ui")
"""Those that have a password, or are there at all, in docker only."""


def lookup(name: str, s: Settings = settings) -> tuple[str, str]:
    """User and password of a service. Raises :class:`CliError` while there is none."""
    user, secret = NAMES[name]
    if not s.docker:
        if name in SERVER:
            raise CliError(f"{name} has no password on one machine, only in docker", USAGE)
        if not (s.home / "secrets" / secret).exists():
            raise CliError(f"{name} has no password yet; {ME} up makes one", NOT_HEALTHY)
    return (s.secret(user) if name == "s3" else user), s.secret(secret)
