"""The dbt project as task groups, drawn by Cosmos from a target's manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cosmos import settings as cosmos_settings
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

from include.serving import dbt

# Its one use here would be to remember how the project was parsed; the manifest's folder has that.
cosmos_settings.enable_cache = False


@dataclass
class ConnectionProfile(ProfileConfig):
    """The project's own ``profiles.yml``, with the values of Airflow's connections.

    They go to dbt's process alone: to no command line, no file, no rendered field of a task.
    """

    @contextmanager
    def ensure_profile(self, desired_profile_path: Path | None = None, use_mock_values: bool = False) -> Iterator[tuple[Path, dict[str, str]]]:
        from shudl.endpoints import endpoints

        partial_parse = dbt.folder(self.target_name) / dbt.PARTIAL_PARSE
        yield dbt.PROFILES, {**dbt.environment(endpoints()), "DBT_PARTIAL_PARSE_FILE_PATH": str(partial_parse)}


def dbt_group(group_id: str, target: str, timeout: timedelta, env: dict[str, Any] | None = None) -> DbtTaskGroup:
    """``dbt build`` for ``target``: one task runs it, the others show a model each, with its tests.

    ``env`` (templates) are variables for dbt. Raises :class:`include.serving.dbt.ManifestMissing`.
    """
    return DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(dbt_project_path=dbt.PROJECT, manifest_path=dbt.manifest_path(target), install_dbt_deps=False),
        profile_config=ConnectionProfile(dbt.PROFILE, target, profiles_yml_filepath=dbt.PROFILES),
        render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.AFTER_EACH, emit_datasets=False),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=dbt.executable(),
            setup_operator_args={"pool": target, "pool_slots": dbt.THREADS[target]},
        ),
        operator_args={"retries": 0, "poke_interval": 1, "execution_timeout": timeout, "append_env": False, "env": env or {}},
    )
