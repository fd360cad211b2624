"""The Java that Spark runs on, and what is left out of the platform where there is none.

Spark gets the JRE that is installed with the engines, or the one of the user's whose home is ``SHUDL_SPARK_JAVA_HOME``
(docs/adr/0006-spark-jre.md).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from include.platform.catalog import service
from include.platform.settings import Settings, settings

SPARK_JAVA = (17, 21)
"""Major versions that Spark 4.1 supports."""
LEFT_OUT = "left out"
"""The state of a service that this machine cannot run, and without which all else works."""


class NoJre(RuntimeError):
    """Spark has no Java to run on; the text says why and what to do."""


def spark_jre(s: Settings = settings) -> Path:
    """Home of the Java runtime chosen for Spark, whether or not it fits."""
    return s.spark_java_home or s.engines / "jre21"


def spark_java_version(s: Settings = settings) -> str:
    """Version of the Java runtime chosen for Spark. Raises :class:`NoJre` when it is missing or does not fit."""
    home = spark_jre(s)
    way_out = (
        f"set SHUDL_SPARK_JAVA_HOME to the home of a Java {' or '.join(map(str, SPARK_JAVA))}, or unset it: ShuDL brings one"
        if s.spark_java_home
        else "./shudl setup installs it"
    )
    try:
        found = re.search(r'^JAVA_VERSION="((\d+)[^"]*)"', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if not found or not os.access(home / "bin" / "java", os.X_OK):
        raise NoJre(f"{home} is not the home of a Java runtime; {way_out}")
    if int(found[2]) not in SPARK_JAVA:
        raise NoJre(f"{home} is Java {found[1]}, on which Spark does not run; {way_out}")
    return found[1]


def left_out(name: str, s: Settings = settings) -> str:
    """Why this machine leaves the service ``name`` out; empty for one that it can run."""
    if service(name).entrypoint != "spark":
        return ""
    try:
        spark_java_version(s)
    except NoJre as error:
        return str(error)
    return ""
