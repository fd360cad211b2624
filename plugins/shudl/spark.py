"""PySpark applications as tasks, through Airflow's Spark provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

from include.platform.catalog import EXTERNAL

if TYPE_CHECKING:
    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

CONN_ID = EXTERNAL.get("spark-master", "shudl_spark")
NAME = "{{ ti.dag_id }}.{{ ti.task_id }}.{{ ti.run_id }}.{{ ti.map_index }}"


class SparkJob(SparkSubmitOperator):
    """Run a PySpark file on the platform's cluster, with the lake as its default catalog; never twice at a time.

    The application is named after the task instance. Its driver is a child of the task and dies with it; a further try
    first ends what is left of the one before (:mod:`include.platform.spark_driver`), and then starts anew. So an
    application must either be repeatable or commit once, at its end.
    """

    def __init__(self, *, application: str, name: str = NAME, **kwargs: Any) -> None:
        super().__init__(application=application, conn_id=CONN_ID, name=name, deploy_mode="client", **kwargs)

    def _get_hook(self) -> SparkSubmitHook:
        from include.platform.spark import driver_environment, properties_file
        from shudl.endpoints import endpoints

        found = endpoints()
        self.env_vars = {**(self.env_vars or {}), **driver_environment(self.name, found)}
        self.properties_file = str(properties_file(found))
        return super()._get_hook()
