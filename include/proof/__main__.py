"""``python -m include.proof SOURCE``: prove that a pipeline's stores hold the same rows; exit code 1 when they do not."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from include.cdc.pipelines import PipelineError, by_source
from include.cli.console import FAILED, USAGE, complain, err, out
from include.cli.sql import cause
from include.platform.endpoints import local_endpoints
from include.proof import prove
from include.proof.show import summary, table


def main(
    source: Annotated[str, typer.Argument(help="Name of the source, as in include/pipelines/.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    timeout_s: Annotated[int, typer.Option(help="Give up after this many seconds.")] = 600,
) -> None:
    """Compare every row and column of SOURCE in PostgreSQL, Iceberg and ClickHouse."""
    try:
        report = prove(by_source(source), local_endpoints(), timeout_s, lambda text: err.print(text, style="dim", markup=False))
    except PipelineError as error:
        complain(str(error))
        raise typer.Exit(USAGE) from None
    except Exception as error:
        complain(cause(error))
        raise typer.Exit(FAILED) from None
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        out.print(table(report))
        out.print(summary(report))
    if report.unresolved:
        complain(report.text())
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    typer.run(main)
