"""Operators for the platform's services. A service whose connection points elsewhere is validated only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.platform.catalog import BY_NAME, CONN_IDS
from include.platform.endpoints import Endpoint

if TYPE_CHECKING:
    from airflow.sdk import Context

GRACE_S = 60
"""How much later than the trigger's own deadline Airflow gives the trigger up."""


class ServiceOperator(BaseOperator):
    """A deed on one service of the catalogue."""

    def __init__(self, *, service: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service

    @property
    def endpoint(self) -> Endpoint:
        from shudl.endpoints import endpoints

        return endpoints()[CONN_IDS[self.service]]

    @property
    def external(self) -> bool:
        from shudl.endpoints import is_external

        return is_external(self.service, self.endpoint)


class StartService(ServiceOperator):
    """Start a service unless it runs or is external, validated only; does not wait for it. Returns what it was.

    Skipped, and with it what follows, when this machine leaves the service out.
    """

    ui_color = "#dbe9f6"

    def execute(self, context: Context) -> str:
        from include.platform.runtime import runtime

        if self.external:
            self.log.info("%s at %s: external, validated only", self.service, self.endpoint.address)
            return "external"
        if reason := runtime().left_out(self.service):
            raise AirflowSkipException(f"{self.service} is left out: {reason}")
        was = "stopped" if runtime().start(self.service) else "running"
        self.log.info("%s was %s", self.service, was)
        return was


class CheckExternal(BaseOperator):
    """See that external services have connections, and that settings say the same. Fails, naming what does not."""

    def execute(self, context: Context) -> dict[str, str]:
        from include.platform.catalog import EXTERNAL
        from include.platform.external import problems
        from shudl.endpoints import endpoints

        if wrong := problems(endpoints()):
            raise AirflowFailException("\n".join(wrong))
        return EXTERNAL


class WaitForService(ServiceOperator):
    """Wait until a service is healthy, at most its ``start_timeout_s``. Needs no worker while it waits."""

    ui_color = "#e6f4ea"

    def execute(self, context: Context) -> None:
        from include.platform.checks import NotHealthy, healthy
        from shudl.endpoints import endpoints
        from shudl.triggers import HealthyTrigger

        try:
            healthy(self.service, endpoints())
        except NotHealthy as error:
            self.log.info("%s", error)
            self.defer(
                trigger=HealthyTrigger(self.service),
                method_name="execute",
                timeout=timedelta(seconds=BY_NAME[self.service].start_timeout_s + GRACE_S),
            )


class CheckService(ServiceOperator):
    """Use a service as ShuDL does; returns the figures that the check saw."""

    ui_color = "#fdf3d8"

    def execute(self, context: Context) -> dict[str, Any]:
        from include.platform.checks import works
        from shudl.endpoints import endpoints

        figures = works(self.service, endpoints())
        self.log.info("%s: %s", self.service, figures)
        return figures


class StopService(ServiceOperator):
    """Stop a service and wait until it has ended. Skipped when it is external or not among ``services``.

    ``services`` is a template that renders to names with commas between them; to nothing for all.
    """

    template_fields: Sequence[str] = ("services",)
    ui_color = "#f6e0db"

    def __init__(self, *, services: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.services = services

    def execute(self, context: Context) -> str:
        from include.platform.runtime import runtime

        if self.services and self.service not in self.services.split(","):
            raise AirflowSkipException(f"{self.service} is not among {self.services}")
        if self.external:
            raise AirflowSkipException(f"{self.service} at {self.endpoint.address} is not ours to stop")
        return "running" if runtime().stop(self.service) else "stopped"


class WriteBootstrapEvidence(BaseOperator):
    """Write what each service's tasks saw as evidence of the run. Fails, naming them, when any of them failed.

    ``tasks`` gives, for each service, the ids of its tasks ``start``, ``healthy`` and ``works``.
    """

    def __init__(self, *, tasks: dict[str, dict[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks

    def execute(self, context: Context) -> str:
        from include.platform.evidence import write_evidence
        from include.platform.runtime import runtime

        ti, run = context["ti"], context["dag_run"]
        done = {crumb["task_id"]: crumb for crumb in ti.get_task_breadcrumbs(run.dag_id, run.run_id)}
        services: dict[str, dict[str, Any]] = {}
        bad = []
        for service, deeds in self.tasks.items():
            seen = services[service] = {}
            for deed, task_id in deeds.items():
                crumb = done.get(task_id, {"state": None, "duration": None})
                seen[deed] = {"state": crumb["state"], "seconds": crumb["duration"]}
                if crumb["state"] == "failed":
                    bad.append(task_id)
            seen["start"]["was"] = ti.xcom_pull(task_ids=deeds["start"])
            seen["works"]["figures"] = ti.xcom_pull(task_ids=deeds["works"])
            if seen["start"]["state"] == "skipped":
                seen["start"]["left_out"] = runtime().left_out(service)
        path = write_evidence(run.dag_id, run.run_id, {"ok": not bad, "failed": bad, "services": services})
        if bad:
            raise AirflowFailException(f"failed: {', '.join(bad)}; figures in {path}")
        return str(path)
