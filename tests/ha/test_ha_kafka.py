"""Kafka grows from one broker to three with its data, and goes on without any one of them. Three containers: on demand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.platform.compose import certificates, secrets
from include.platform.compose.files import User
from include.platform.compose.model import Compose
from include.platform.settings import ROOT, settings
from tests.compose_platform import VERSION, keep_logs
from tests.ha.conftest import GOAL, WANTED

BROKERS = ("kafka", "kafka2", "kafka3")
JAVA = ("/opt/shudl/install/engines/jre21/bin/java", "-cp", "/opt/shudl/install/engines/kafka/libs/*")
START_S, LEAD_S = 300, 60
pytestmark = pytest.mark.timeout(1800)


class Brokers:
    """Kafka's containers of docker/compose.yaml as a Compose project of their own, in a folder with secrets of its own."""

    def __init__(self, project: str, folder: Path) -> None:
        self.project, self.folder = project, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "docker" / "compose.yaml", folder)
        compose, me = Compose.read(folder / "compose.yaml"), User(os.getuid(), os.getgid())
        secrets.make(folder / "secrets", compose, me)
        certificates.make(folder / "certificates", compose, me)

    def docker(self, *arguments: str, profiles: str = "ha", timeout_s: float = 120, said: str = "") -> str:
        env = {**os.environ, "VERSION": VERSION, "COMPOSE_PROFILES": profiles, "KAFKA_HEAP": "384m"}
        done = subprocess.run(["docker", *arguments], env=env, input=said, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def compose(self, *arguments: str, profiles: str = "ha", timeout_s: float = 120) -> str:
        where = ("-p", self.project, "-f", str(self.folder / "compose.yaml"))
        return self.docker("compose", *where, *arguments, profiles=profiles, timeout_s=timeout_s)

    def keep_logs(self, folder: Path) -> list[Path]:
        return keep_logs(self.project, folder)

    def tool(self, broker: str, tool: str, *arguments: str, said: str = "") -> str:
        """A tool of Kafka's within a broker's container, as the brokers' own user."""
        signs_in = ("--bootstrap-server", f"{broker}:9094", "--command-config", "/run/shudl/admin.properties")
        return self.docker("exec", "-i", f"{self.project}-{broker}-1", *JAVA, tool, *signs_in, *arguments, said=said)

    def up(self, profiles: str, *brokers: str) -> None:
        self.compose("up", "-d", "--wait", "--wait-timeout", str(START_S), *brokers, profiles=profiles, timeout_s=START_S + 60)

    def write(self, broker: str, topic: str, line: str) -> None:
        """Acknowledged by as many as must have it."""
        acks = ("--request-required-acks", "all", "--sync")
        self.tool(broker, "org.apache.kafka.tools.ConsoleProducer", "--topic", topic, *acks, said=f"{line}\n")

    def read(self, broker: str, topic: str, number: int) -> list[str]:
        much = ("--topic", topic, "--from-beginning", "--max-messages", str(number), "--timeout-ms", "60000")
        return self.tool(broker, "org.apache.kafka.tools.consumer.ConsoleConsumer", *much).split()

    def replicas(self, broker: str) -> dict[str, set[str]]:
        """Topic → the brokers that are in sync, of its only partition."""
        told = self.tool(broker, "org.apache.kafka.tools.TopicCommand", "--describe")
        return {name: set(isr.split(",")) for name, isr in re.findall(r"\tTopic: (\S+)\t.*\tIsr: ([\d,]*)", told)}


def within(s: float, otherwise: str, done: Callable[[], bool]) -> None:
    deadline, reason = time.monotonic() + s, ""
    while True:
        try:
            if done():
                return
        except AssertionError as error:  # a tool that found nobody
            reason = f": {error}"
        assert time.monotonic() < deadline, f"{otherwise} within {s:.0f} s{reason}"
        time.sleep(1)


@pytest.fixture(scope="module")
def kafka() -> Iterator[Brokers]:
    """One broker, without the profile, with a topic that has a record."""
    if not os.environ.get(WANTED):
        pytest.skip(f"three brokers run on demand: {GOAL} (it sets {WANTED})")
    if os.getuid():
        pytest.skip("services read their secrets as uid 1000: only root can give them to it")
    brokers = Brokers(f"shudl-test-kafka-{os.getpid()}", settings.home / "ha-kafka")
    try:
        brokers.up("", "kafka")
        brokers.docker("exec", f"{brokers.project}-kafka-1", *JAVA, "org.apache.kafka.tools.TopicCommand", *LOCAL, *MAKES)
        brokers.docker(
            "exec", "-i", f"{brokers.project}-kafka-1", *JAVA, "org.apache.kafka.tools.ConsoleProducer", *LOCAL,
            "--topic", "changes", said="before\n",
        )  # fmt: skip
        yield brokers
    finally:
        brokers.compose("down", "-v", "-t", "1", timeout_s=180)


LOCAL = ("--bootstrap-server", "127.0.0.1:9094", "--command-config", "/run/shudl/admin.properties")
"""Without the profile brokers' own listener is on loopback."""
MAKES = ("--create", "--topic", "changes", "--partitions", "1")


def test_two_more_join_and_get_what_was_there(kafka: Brokers) -> None:
    kafka.up("ha", *BROKERS)
    within(START_S, "the topic is not on all three", lambda: kafka.replicas("kafka2").get("changes") == {"1", "2", "3"})
    told = kafka.tool("kafka3", "org.apache.kafka.tools.MetadataQuorumCommand", "describe", "--status")
    (voters,) = re.findall(r"^CurrentVoters:(.*)$", told, re.M)
    assert {f"{broker}:9093" for broker in BROKERS} == set(re.findall(r"CONTROLLER://([\w:]+)", voters))
    assert kafka.read("kafka3", "changes", 1) == ["before"]


@pytest.mark.parametrize("broker", BROKERS)
def test_any_one_may_die(broker: str, kafka: Brokers) -> None:
    """What was acknowledged before and while it is away is there; it catches up when it is back."""
    other = next(name for name in BROKERS if name != broker)
    records = 2 + BROKERS.index(broker)
    kafka.compose("kill", broker)
    begun = time.monotonic()
    within(LEAD_S, "no record is acknowledged", lambda: kafka.write(other, "changes", f"without-{broker}") is None)
    print(f"{broker} killed: a record is acknowledged after {time.monotonic() - begun:.1f} s (a JVM's start among them)")
    assert f"without-{broker}" in kafka.read(other, "changes", records)
    kafka.up("ha", broker)
    within(START_S, f"{broker} has not caught up", lambda: len(kafka.replicas(other).get("changes", ())) == 3)
