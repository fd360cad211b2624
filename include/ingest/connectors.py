"""Airbyte connectors: installed when first used, each in an environment of its own, and spoken to by Airbyte's protocol.

A connector is a program: ``spec``, ``check``, ``discover`` and ``read`` print JSON messages, one a line
(https://docs.airbyte.com/understanding-airbyte/airbyte-protocol). Configuration, catalogue and state go to it in files that
only this user can read, so that no secret stands in a list of processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import orjson

from include.cdc.pipelines import PipelineError
from include.ingest.deadletters import IngestError
from include.ingest.sources import AirbytePipeline
from include.platform.endpoints import Endpoint
from include.platform.settings import Settings, settings

Say = Callable[[str], None]
LONGEST_LINE = 100_000_000
"""Bytes of a message of a connector; Kafka takes less of a record."""
INSTALL_S = 900
COMMAND_S = 600
FALLBACK_PYTHON = "3.12"
TRACE_LINES = 30
WAY_OUT = {"CONNECTOR_PROXY": ("HTTP_PROXY", "HTTPS_PROXY"), "CONNECTOR_CA_FILE": ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
"""Settings of the containers (docker/.env.example) → the variables by which uv and connectors know them."""


@dataclass(frozen=True)
class Connector:
    """An installed connector. ``secrets`` are taken out of everything that it says."""

    pipeline: AirbytePipeline
    program: Path
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def spec(self) -> dict[str, Any]:
        """The JSON schema of its configuration."""
        for message in self._messages("spec"):
            if message["type"] == "SPEC":
                return message["spec"].get("connectionSpecification") or {}
        raise IngestError(f"{self.name} has no specification; is it a source connector?")

    def validate(self, config: dict[str, Any]) -> None:
        """Raises :class:`PipelineError` with everything that the connector's own specification refuses."""
        from jsonschema import Draft7Validator

        spec = self.spec()
        found = sorted(Draft7Validator(spec).iter_errors(config), key=lambda error: list(map(str, error.absolute_path)))
        problems = []
        for error in found:
            keys = ("config", *map(str, error.absolute_path))
            known = ", ".join(spec.get("properties") or {})
            text = self._hidden(error.message)
            problems.append(f"{self.pipeline.at(*keys)}: {text}; the configuration of {self.name} has {known or 'no keys'}")
        if problems:
            raise PipelineError(problems)

    def check(self, config: dict[str, Any]) -> None:
        """Raises :class:`IngestError` when the connector cannot reach its source with ``config``."""
        with self._file("config", config) as path:
            for message in self._messages("check", "--config", path):
                if message["type"] == "CONNECTION_STATUS":
                    status = message["connectionStatus"]
                    if status["status"] == "SUCCEEDED":
                        return
                    reason = self._hidden(str(status.get("message") or "it gives no reason"))
                    raise IngestError(f"{self.pipeline.at('config')}: {self.name} cannot use its source: {reason}")
        raise IngestError(f"{self.name} did not say whether it can use its source")

    def discover(self, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The source's streams by name."""
        with self._file("config", config) as path:
            for message in self._messages("discover", "--config", path):
                if message["type"] == "CATALOG":
                    return {stream["name"]: stream for stream in message["catalog"]["streams"]}
        raise IngestError(f"{self.name} did not say which streams its source has")

    @contextmanager
    def read(self, config: dict[str, Any], catalog: dict[str, Any], state: list[Any], say: Say) -> Iterator[Iterator[Any]]:
        """The connector's messages, as it gives them; it is ended at the end of the block."""
        with self._file("config", config) as c, self._file("catalog", catalog) as k, self._file("state", state) as s:
            arguments = ["--config", c, "--catalog", k, *(["--state", s] if state else [])]
            messages = self._messages("read", *arguments, say=say, timeout_s=None)
            try:
                yield messages
            finally:
                messages.close()

    @property
    def name(self) -> str:
        return f"{self.pipeline.connector}=={self.pipeline.version}"

    def _messages(
        self, command: str, *arguments: str, say: Say = lambda line: None, timeout_s: float | None = COMMAND_S
    ) -> Iterator[Any]:
        """Raises :class:`IngestError` with the connector's own reason when it fails, after what it gave before."""
        process = subprocess.Popen(
            [str(self.program), command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            cwd=tempfile.gettempdir(),
        )
        said: deque[str] = deque(maxlen=TRACE_LINES)
        reader = threading.Thread(target=lambda: said.extend(_lines(process.stderr)), daemon=True)
        reader.start()
        timer = threading.Timer(timeout_s or 0, process.kill) if timeout_s else None
        if timer:
            timer.start()
        trace = ""
        try:
            while line := process.stdout.readline(LONGEST_LINE):  # type: ignore[union-attr]
                if len(line) >= LONGEST_LINE:
                    raise IngestError(
                        f"{self.name} sent a message of more than {LONGEST_LINE} bytes, which is more than a record may have; "
                        "take the stream or the field that is so large out of the source's configuration"
                    )
                try:
                    message = orjson.loads(line)
                    kind = message["type"]
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    said.append(line.decode(errors="replace").rstrip())
                    continue
                if kind == "LOG":
                    if message["log"].get("level") in ("WARN", "ERROR", "FATAL"):
                        say(self._hidden(str(message["log"].get("message"))))
                elif kind == "TRACE":
                    if message["trace"].get("type") == "ERROR":
                        error = message["trace"]["error"]
                        trace = f"{error.get('message') or ''} {error.get('internal_message') or ''}".strip()
                else:
                    yield message
            code = process.wait()
            reader.join(5)
            if code or trace:
                reason = trace or " ".join(list(said)[-3:]) or "it gives no reason"
                raise IngestError(f"{self.name} {command} ended with code {code}: {self._hidden(reason)[:2000]}")
        finally:
            if timer:
                timer.cancel()
            if process.poll() is None:
                process.kill()
            process.wait()

    @contextmanager
    def _file(self, name: str, value: Any) -> Iterator[str]:
        folder = settings.run("ingest")
        fd, path = tempfile.mkstemp(prefix=f"{self.pipeline.source}.{name}.", suffix=".json", dir=folder)  # mode 0600
        try:
            with os.fdopen(fd, "w") as file:
                json.dump(value, file)
            yield path
        finally:
            os.unlink(path)

    def _hidden(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


def configuration(pipeline: AirbytePipeline, endpoint: Endpoint | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The connector's configuration with the connection's fields in place, and the secrets in it.

    Raises :class:`PipelineError` naming each ``${…}`` that the connection does not have.
    """
    known: dict[str, Any] = {}
    if endpoint:
        fields = ("host", "port", "login", "password", "schema")
        known = {**endpoint.extra, **{name: getattr(endpoint, name) for name in fields if getattr(endpoint, name)}}
    secrets: set[str] = set()
    problems: list[str] = []

    def filled(value: Any, keys: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner, (*keys, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner, (*keys, str(number))) for number, inner in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        template = Template(value)
        names = template.get_identifiers()
        for name in names:
            if name not in known:
                where = f"connection {pipeline.connection}" if pipeline.connection else "there is no connection, which"
                has = ", ".join(sorted(known)) or "none"
                problems.append(f"{pipeline.at(*keys)}: {where} has no field {name} for ${{{name}}}; it has {has}")
        secrets.update(str(known[name]) for name in names if name in known and name not in ("host", "port", "schema"))
        if len(names) == 1 and value == f"${{{names[0]}}}" and names[0] in known:
            return known[names[0]]  # a number, a list or a mapping of the extra stays one
        return template.safe_substitute({name: str(text) for name, text in known.items()})

    made = filled(pipeline.config, ("config",))
    if problems:
        raise PipelineError(problems)
    return made, tuple(sorted((secret for secret in secrets if len(secret) > 2), key=len, reverse=True))


def install(pipeline: AirbytePipeline, say: Say, secrets: tuple[str, ...] = (), s: Settings = settings) -> Connector:
    """The pipeline's connector, installed unless it is. Of several that call at once one installs, and the others wait.

    Raises :class:`PipelineError` when the package index has no such version, or it cannot be installed.
    """
    package, version = pipeline.connector, pipeline.version
    root = s.data("ingest") / "connectors"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{package}-{version}{f'-py{pipeline.python}' if pipeline.python else ''}"
    stamp = folder / ".complete"
    if not stamp.exists():
        with _locked(root / f"{folder.name}.lock", lambda: say(f"{package}=={version}: another run installs it; waiting")):
            if not stamp.exists():
                _install(pipeline, folder, say, s)
                stamp.write_text(_program(pipeline, folder).name)
    return Connector(pipeline, folder / "bin" / stamp.read_text(), secrets)


def _install(pipeline: AirbytePipeline, folder: Path, say: Say, s: Settings) -> None:
    wanted = f"{pipeline.connector}=={pipeline.version}"
    began = time.monotonic()
    say(f"{wanted}: installing into {folder}")
    said = ""
    for python in [pipeline.python] if pipeline.python else [sys.executable, FALLBACK_PYTHON]:
        shutil.rmtree(folder, ignore_errors=True)
        made = _uv(s, "venv", "--python", python, str(folder))
        if made.returncode:
            said = said or made.stderr
            continue
        done = _uv(s, "pip", "install", "--python", str(folder / "bin" / "python"), wanted)
        if done.returncode == 0:
            say(f"{wanted}: installed in {time.monotonic() - began:.0f} s")
            return
        said = done.stderr
        if not re.search("Python|Failed to build", said):  # not for want of another Python
            break
    shutil.rmtree(folder, ignore_errors=True)
    told = re.search(r"^ *(error:|×).*", said, re.M | re.S)  # after what it did
    words = " ".join(re.sub(r"[×╰─▶│]", " ", told[0] if told else said).split())
    raise PipelineError(
        [f"{pipeline.at('connector')}: {wanted} cannot be installed: {words[:600]}; see that the package index has it"]
    )


def _program(pipeline: AirbytePipeline, folder: Path) -> Path:
    """The connector's own program among those that its environment has."""
    name = pipeline.connector.removeprefix("airbyte-")
    if (found := folder / "bin" / name).exists():
        return found
    others = sorted(path.name for path in (folder / "bin").glob("source-*"))
    if len(others) == 1:
        return folder / "bin" / others[0]
    text = f"{pipeline.connector} has no program {name}; it is no Airbyte source"
    raise PipelineError([f"{pipeline.at('connector')}: {text}"])


def _uv(s: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    uv = s.envs / "tools" / "bin" / "uv"
    command = [str(uv), "--no-progress", *arguments]
    env = {**os.environ, **_given(WAY_OUT), **_given({"CONNECTOR_INDEX": ("UV_DEFAULT_INDEX",)})}
    if s.docker:  # its user has no home there
        env |= {"UV_CACHE_DIR": str(s.data("ingest") / "cache"), "UV_PYTHON_INSTALL_DIR": str(s.data("ingest") / "python")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)


@contextmanager
def _locked(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _environment() -> dict[str, str]:
    """A connector gets no setting of Airflow's, whose database's password is among them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "SHUDL", "PYTHON", "CONNECTOR"))}
    return {**kept, **_given(WAY_OUT), "AIRBYTE_OFFLINE_MODE": "1", "DO_NOT_TRACK": "1"}


def _given(settings: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The variables that carry those of ``settings`` that are given; of files those that are there and no device."""
    given = {name: os.environ.get(name) for name in settings}
    used = [name for name, value in given.items() if value and (not name.endswith("_FILE") or Path(value).is_file())]
    return {variable: given[name] for name in used for variable in settings[name]}


def _lines(stream: Any) -> Iterator[str]:
    for line in stream:
        yield line.decode(errors="replace").rstrip()
