"""The dbt project as task groups, drawn by Cosmos from a target's manifest.

In each group one task runs ``dbt build``, tests included; each of the others shows what becomes of a model. A model's
tests are not tasks of their own, since every task costs about half a second of a core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from cosmos import settings as cosmos_settings
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior
from cosmos.operators._watcher.state import is_dbt_node_status_success
from cosmos.operators.watcher import DbtRunWatcherOperator

from include.serving import dbt

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator, Context, TaskGroup
    from cosmos.dbt.graph import DbtNode

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


class ModelSensor(DbtRunWatcherOperator):
    """Waits, in the triggerer, for what the task that runs dbt says of one model. Never runs dbt itself.

    It may be retried: Airflow sometimes fails a task whose trigger fires while the scheduler has not heard yet that the
    task has deferred (https://github.com/apache/airflow/issues/72716). What dbt says is final.
    """

    def execute(self, context: Context, **kwargs: Any) -> None:
        with _final():
            super().execute(context, **kwargs)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        with _final():
            super().execute_complete(context, event)

    def _fallback_to_non_watcher_run(self, try_number: int, context: Context) -> bool:
        """Cosmos would build the model here, without its tests, when the task that runs dbt is over."""
        if not is_dbt_node_status_success(self._get_node_status(context["ti"], context)):
            raise AirflowFailException(f"{self.model_unique_id} was not built; see the log of {self.producer_task_id}")
        return True


@contextmanager
def _final() -> Iterator[None]:
    try:
        yield
    except (AirflowFailException, AirflowSkipException):
        raise
    except AirflowException as error:
        raise AirflowFailException(str(error)) from None


def model_task(node: DbtNode, task_id: str, dag: DAG, task_group: TaskGroup, task_args: dict[str, Any], **_: Any) -> BaseOperator:
    """The task that shows a model; one that does nothing for a model that is part of others."""
    place = {"task_id": task_id, "dag": dag, "task_group": task_group}
    if node.has_ephemeral_materialization:
        return EmptyOperator(**place)
    return ModelSensor(**place, **task_args, extra_context={"dbt_node_config": node.context_dict})


def first_try_only(context: Context) -> None:
    """Refuse a second try of the task that runs dbt, which Cosmos would skip: its models would pass untested."""
    if context["ti"].try_number > 1:
        raise AirflowFailException(f"dbt's part of a run is not repeated; trigger {context['dag'].dag_id} again, it starts anew")


def name_failures(project_dir: str, context: Context) -> None:
    """Called when dbt has ended: raise what it says of each model and test that failed, if it came to running them."""
    results = Path(project_dir) / "target" / "run_results.json"
    found = json.loads(results.read_text())["results"] if results.exists() else []
    if failed := [result for result in found if result["status"] in ("error", "fail", "runtime error")]:
        raise AirflowFailException("; ".join(_words(result) for result in failed))


def _words(result: dict[str, Any]) -> str:
    kind, _, name = result["unique_id"].split(".")[:3]
    return f"{kind} {name}: {' '.join(str(result['message']).split())}"


def dbt_group(group_id: str, target: str, timeout: timedelta, env: dict[str, Any] | None = None) -> DbtTaskGroup:
    """``dbt build`` for ``target``, as a task group. ``env`` (templates) are variables for dbt.

    A failed test fails the task that runs dbt, and the models that depend on the tested one. Raises
    :class:`include.serving.dbt.ManifestMissing`.
    """
    return DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(dbt.PROJECT, manifest_path=dbt.manifest_path(target), install_dbt_deps=False),
        profile_config=ConnectionProfile(dbt.PROFILE, target, profiles_yml_filepath=dbt.PROFILES),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.NONE,
            node_converters={DbtResourceType.MODEL: model_task},
            emit_datasets=False,
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=dbt.executable(),
            setup_operator_args={
                "pool": target,
                "pool_slots": dbt.THREADS[target],
                "dbt_cmd_flags": ["--resource-type", "test"],  # Cosmos adds every other type
                "pre_execute": first_try_only,
                "callback": name_failures,
                "retries": 0,
            },
        ),
        operator_args={
            "retries": 3,
            "retry_delay": timedelta(seconds=1),
            "poke_interval": POLL_S,
            "execution_timeout": timeout,
            "append_env": False,
            "env": env or {},
        },
    )
