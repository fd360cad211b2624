"""Operators for the platform's services. The first three run in the triggerer from their start to their end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import StartTriggerArgs

from include.platform.catalog import BY_NAME

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

GRACE_S = 60
"""How much later than the trigger's own deadline Airflow gives it up."""


class ServiceOperator(BaseOperator):
    """A deed on one service, done by the trigger class ``trigger`` of :mod:`shudl.triggers`."""

    trigger: ClassVar[str]
    start_from_trigger = True

    def __init__(self, *, service: str, timeout_s: int, trigger_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"shudl.triggers.{self.trigger}",
            trigger_kwargs={"service": service, **(trigger_kwargs or {})},
            next_method="execute",
            timeout=timedelta(seconds=timeout_s + GRACE_S),
        )

    def execute(self, context: Context) -> None:
        raise RuntimeError(f"{self.task_id} runs in the triggerer; is airflow-triggerer up?")


class StartService(ServiceOperator):
    """Start a service unless it runs or is external."""

    trigger = "StartTrigger"
    ui_color = "#dbe9f6"

    def __init__(self, *, service: str, **kwargs: Any) -> None:
        super().__init__(service=service, timeout_s=30, **kwargs)


class WaitForService(ServiceOperator):
    """Wait until a service is healthy; at most its ``start_timeout_s``."""

    trigger = "HealthyTrigger"
    ui_color = "#e6f4ea"

    def __init__(self, *, service: str, **kwargs: Any) -> None:
        super().__init__(service=service, timeout_s=BY_NAME[service].start_timeout_s, **kwargs)


class StopService(ServiceOperator):
    """Stop a service. Skipped when ``services`` (a template: names with commas between them) is not empty and lacks it."""

    trigger = "StopTrigger"
    template_fields: Sequence[str] = ("services",)
    ui_color = "#f6e0db"

    def __init__(self, *, service: str, services: str, **kwargs: Any) -> None:
        super().__init__(
            service=service, timeout_s=BY_NAME[service].stop_timeout_s, trigger_kwargs={"services": services}, **kwargs
        )
        self.services = services


class CheckService(BaseOperator):
    """Use a service as ShuDL does; returns the figures that the check saw."""

    ui_color = "#fdf3d8"

    def __init__(self, *, service: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service

    def execute(self, context: Context) -> dict[str, Any]:
        from include.platform.checks import works
        from shudl.endpoints import endpoints

        figures = works(self.service, endpoints())
        self.log.info("%s: %s", self.service, figures)
        return figures


class WriteBootstrapEvidence(BaseOperator):
    """Write what each service's tasks saw as evidence of the run. Fails, naming them, when any of them failed.

    ``tasks`` gives, for each service, the ids of its tasks ``start``, ``healthy`` and ``works``.
    """

    def __init__(self, *, tasks: dict[str, dict[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks

    def execute(self, context: Context) -> str:
        from include.platform.evidence import write_evidence

        ti, run = context["ti"], context["dag_run"]
        states = ti.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id]).get(run.run_id, {})
        services = {
            service: {
                deed: {"state": states.get(task_id) or "none", **_figures(ti, task_id)} for deed, task_id in deeds.items()
            }
            for service, deeds in self.tasks.items()
        }
        bad = [self.tasks[s][deed] for s, deeds in services.items() for deed, seen in deeds.items() if seen["state"] == "failed"]
        path = write_evidence(run.dag_id, run.run_id, {"ok": not bad, "failed": bad, "services": services})
        if bad:
            raise AirflowFailException(f"failed: {', '.join(bad)}; figures in {path}")
        return str(path)


def _figures(ti: RuntimeTaskInstance, task_id: str) -> dict[str, Any]:
    for key in ("return_value", "error"):
        # A value that a trigger pushed comes back as JSON text.
        if (value := ti.xcom_pull(task_ids=task_id, key=key)) is not None:
            value = json.loads(value) if isinstance(value, str) else value
            return value if isinstance(value, dict) else {key: value}
    return {}
