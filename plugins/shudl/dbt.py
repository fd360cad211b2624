"""The dbt project as task groups, drawn by Cosmos from a target's manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from cosmos import settings as cosmos_settings
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

from include.serving import dbt

if TYPE_CHECKING:
    from airflow.sdk import Context

# Its one use here would be to remember how the project was parsed; the manifest's folder has that.
cosmos_settings.enable_cache = False


POLL_S = 2


@dataclass
class ConnectionProfile(ProfileConfig):
    """The project's own ``profiles.yml``, with the values of Airflow's connections.

    They go to dbt's process alone: to no command line, no file, no rendered field of a task.
    """

    @contextmanager
    def ensure_profile(
        self, desired_profile_path: Path | None = None, use_mock_values: bool = False
    ) -> Iterator[tuple[Path, dict[str, str]]]:
        from shudl.endpoints import endpoints

        partial_parse = dbt.folder(self.target_name) / dbt.PARTIAL_PARSE
        yield dbt.PROFILES, {**dbt.environment(endpoints()), "DBT_PARTIAL_PARSE_FILE_PATH": str(partial_parse)}


def first_try_only(context: Context) -> None:
    """Refuse a second try of the task that runs dbt: Cosmos would skip it, and have its models built without their tests."""
    if context["ti"].try_number > 1:
        raise AirflowFailException(f"dbt's part of a run is not repeated; trigger {context['dag'].dag_id} again, it starts anew")


def dbt_group(group_id: str, target: str, timeout: timedelta, env: dict[str, Any] | None = None) -> DbtTaskGroup:
    """``dbt build`` for ``target``, tests included: one task runs it, the others show what becomes of each model.

    A failed test fails the task that runs dbt, and the models that depend on the tested one; each model's tests are
    not tasks of their own, since every task costs about half a second of a core. ``env`` (templates) are variables
    for dbt. Raises :class:`include.serving.dbt.ManifestMissing`.
    """
    return DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(dbt.PROJECT, manifest_path=dbt.manifest_path(target), install_dbt_deps=False),
        profile_config=ConnectionProfile(dbt.PROFILE, target, profiles_yml_filepath=dbt.PROFILES),
        render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.NONE, emit_datasets=False),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=dbt.executable(),
            setup_operator_args={
                "pool": target,
                "pool_slots": dbt.THREADS[target],
                "dbt_cmd_flags": ["--resource-type", "test"],  # Cosmos adds every other type
                "pre_execute": first_try_only,
            },
        ),
        operator_args={
            "retries": 0,
            "poke_interval": POLL_S,
            "execution_timeout": timeout,
            "append_env": False,
            "env": env or {},
        },
    )
