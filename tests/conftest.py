"""The real parts that tests share: brokers, a cache, topics of one's own, the data folders.

Servers start once per session, when the first test asks for them. `MMCAT_TEST_KAFKA`, `MMCAT_TEST_REDIS`,
`MMCAT_TEST_DATA` and `MMCAT_TEST_WEIGHTS` name one's own instead. A test that any broker can serve takes `kafka`;
one that needs what only Apache Kafka does takes `apache_kafka` and skips, with its reason, where there is none.
"""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from mmcat.cli.processes import ServerMissing
from mmcat.cli.servers import LocalKafka, LocalTansu, LocalValkey, kafka_libs, why_no_kafka
from tests.support.broker import TopicNames, create_topics, random_topics, warm_groups

KAFKA_POM = Path(__file__).parent / "kafka" / "pom.xml"
FETCH_JARS_S = 300
hypothesis.settings.register_profile("mmcat", deadline=None)  # a shared machine's clock proves nothing
hypothesis.settings.load_profile("mmcat")
PARTITIONS = 3
"""Of the topics of one test: enough for order to matter between and within partitions."""


def _to_stderr(*_: object) -> structlog.PrintLogger:
    return structlog.PrintLogger(sys.stderr)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command sets the log up for a process of its own: the next test has it as it was.

    To stderr: a client of a broker that is gone may have something to say while another test reads an answer.
    """
    structlog.configure(logger_factory=_to_stderr)
    yield
    structlog.reset_defaults()


def _why_no_kafka() -> str | None:
    """Why there is no Apache Kafka for tests, after trying once to fetch its jars; None if there is."""
    reason = why_no_kafka()
    if reason is None or shutil.which("java") is None or shutil.which("mvn") is None:
        return reason
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={kafka_libs()}"]
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(KAFKA_POM), *goal]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_JARS_S, check=False)
    except subprocess.TimeoutExpired:
        return f"Apache Kafka's jars did not arrive within {FETCH_JARS_S} s"
    return why_no_kafka() if done.returncode == 0 else f"Apache Kafka's jars could not be fetched: {done.stdout[-300:]}"


@pytest.fixture(scope="session")
def server_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder where the session's servers write what they have to say."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def _apache_kafka(server_logs: Path) -> Iterator[tuple[str, str]]:
    """(bootstrap address, why there is none): one of the two is empty."""
    if own := os.environ.get("MMCAT_TEST_KAFKA"):
        warm_groups(own)
        yield own, ""
        return
    if (reason := _why_no_kafka()) is not None:
        yield "", reason
        return
    with LocalKafka(logs=server_logs) as broker:
        warm_groups(broker.bootstrap)
        yield broker.bootstrap, ""


@pytest.fixture(scope="session")
def apache_kafka(_apache_kafka: tuple[str, str]) -> str:
    """Bootstrap address of an Apache Kafka, warm; skips where there is none."""
    bootstrap, reason = _apache_kafka
    if reason:
        pytest.skip(reason)
    return bootstrap


@pytest.fixture(scope="session")
def tansu(server_logs: Path) -> Iterator[str]:
    """Bootstrap address of the embedded broker."""
    broker = LocalTansu(logs=server_logs)
    try:
        broker.__enter__()
    except ServerMissing as error:
        pytest.skip(str(error))
    yield broker.bootstrap
    broker.close()


@pytest.fixture(scope="session")
def kafka(_apache_kafka: tuple[str, str], request: pytest.FixtureRequest) -> str:
    """Bootstrap address of a broker: Apache Kafka where it can be had, else the embedded one."""
    bootstrap, reason = _apache_kafka
    return request.getfixturevalue("tansu") if reason else bootstrap


@pytest.fixture(scope="session")
def _valkey(server_logs: Path) -> Iterator[str]:
    if own := os.environ.get("MMCAT_TEST_REDIS"):
        yield own
        return
    cache = LocalValkey(logs=server_logs)
    try:
        cache.__enter__()
    except ServerMissing as error:
        pytest.skip(str(error))
    yield cache.url
    cache.close()


@pytest.fixture
def valkey_url(_valkey: str) -> str:
    """Address of a Valkey or Redis. Shared by the session: keep to keys under `view_prefix`."""
    return _valkey


@pytest.fixture
def view_prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def group_id() -> str:
    """A consumer group that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topics(kafka: str) -> TopicNames:
    """The topics of design section 3 under random names, made on `kafka` with three partitions."""
    names = random_topics()
    create_topics(kafka, [names.input], PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
    create_topics(kafka, [names.output], PARTITIONS, {"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"})
    create_topics(kafka, [names.review, names.dead_letter], PARTITIONS)
    return names


def _folder(variable: str, what: str) -> Path:
    named = os.environ.get(variable)
    if not named or not Path(named).is_dir():
        pytest.skip(f"{what}: set {variable} to its folder" + (f" ({named} is none)" if named else ""))
    return Path(named)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real listings, photos and taxonomies; skips where MMCAT_TEST_DATA does not name it."""
    return _folder("MMCAT_TEST_DATA", "the test needs the real listings")


@pytest.fixture(scope="session")
def test_weights() -> Path:
    """Folder of real encoders' weights; skips where MMCAT_TEST_WEIGHTS does not name it."""
    return _folder("MMCAT_TEST_WEIGHTS", "the test needs real encoders' weights")
