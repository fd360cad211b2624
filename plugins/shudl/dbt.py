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
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import StartTriggerArgs
from cosmos import settings as cosmos_settings
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import PRODUCER_WATCHER_TASK_ID, DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior

from include.serving import dbt

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context, TaskGroup
    from cosmos.dbt.graph import DbtNode

# Its one use here would be to remember how the project was parsed; the manifest's folder has that.
cosmos_settings.enable_cache = False


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


class ShowModel(BaseOperator):
    """Becomes what the task that runs dbt says of one model. The triggerer alone waits for it: no worker is started."""

    start_from_trigger = True

    def __init__(self, *, model: str, producer: str, timeout: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="shudl.triggers.ModelTrigger",
            trigger_kwargs={"model": model, "producer": producer, "dag_id": self.dag_id},
            next_method="execute",
            timeout=timeout,
        )

    def execute(self, context: Context) -> None:
        raise AirflowFailException(f"{self.task_id} is ended by its trigger; it must not come to a worker")


def model_task(node: DbtNode, task_id: str, dag: DAG, task_group: TaskGroup, task_args: dict[str, Any], **_: Any) -> BaseOperator:
    """The task that shows a model; one that does nothing for a model that is part of others."""
    place = {"task_id": task_id, "dag": dag, "task_group": task_group}
    if node.has_ephemeral_materialization:
        return EmptyOperator(**place)
    producer = f"{task_group.group_id}.{PRODUCER_WATCHER_TASK_ID}"
    return ShowModel(**place, model=node.unique_id, producer=producer, timeout=task_args["execution_timeout"])


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


def dbt_group(group_id: str, target: str, timeout: timedelta, env: dict[str, Any] | None = None, tag: str = "") -> DbtTaskGroup:
    """``dbt build`` for ``target``, as a task group. ``env`` (templates) are variables for dbt.

    Of the models that have ``tag``; without it of those that have none.

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
            select=[f"tag:{tag}"] if tag else [],
            exclude=[] if tag else [f"tag:{other}" for other in dbt.tags(target)],
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
            },
        ),
        operator_args={
            "retries": 0,
            "execution_timeout": timeout,
            "append_env": False,
            "env": env or {},
        },
    )
