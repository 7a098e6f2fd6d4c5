"""Three brokers of Apache Kafka on this machine (KRaft, each also a controller), for faults that need more than one.

Everything is kept three times, two in step are enough: so one may be away. Used by site.py.
"""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka.admin import AdminClient

from mmcat.cli.processes import free_port, spawn
from mmcat.cli.servers import LocalKafka
from tests.support.waiting import eventually

SIZE: Final = 3
READY_S: Final = 90.0


class Node(LocalKafka):
    """One broker of several: its start waits for nobody, for it is ready only with the others."""

    def start(self) -> None:
        """Start and return at once; `wait` blocks until it answers."""
        self._prepare()
        self._process = spawn(self._command(), self.log)

    def wait(self) -> None:
        """Block until a client is answered."""
        assert self._process is not None, "not started"
        self._wait_ready(self._process)


class Cluster:
    """Three nodes, as a context manager that is ready when entered."""

    def __init__(self, logs: Path) -> None:
        ports = [(free_port(), free_port()) for _ in range(SIZE)]
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(ports, 1))
        self.nodes = [
            Node(
                logs=logs / f"broker-{number}",
                port=port,
                ready_timeout_s=READY_S,
                settings={
                    "node.id": str(number),
                    "controller.quorum.voters": voters,
                    "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                    "offsets.topic.replication.factor": "3",
                    "transaction.state.log.replication.factor": "3",
                    "transaction.state.log.min.isr": "2",
                    "default.replication.factor": "3",
                    "min.insync.replicas": "2",
                },
            )
            for number, (port, controller) in enumerate(ports, 1)
        ]

    @property
    def bootstrap(self) -> str:
        """All three addresses."""
        return ",".join(node.bootstrap for node in self.nodes)

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.__enter__()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()
            node.close()

    def wait(self) -> None:
        """Block until all three answer, and know of each other."""
        for node in self.nodes:
            node.wait()
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        eventually(lambda: len(admin.list_topics(timeout=5).brokers) == SIZE, "all brokers are in", READY_S)

    def leader(self, topic: str, partition: int) -> Node:
        """The node that leads a partition."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        number = admin.list_topics(topic, timeout=30).topics[topic].partitions[partition].leader
        return self.nodes[number - 1]

    def coordinator(self) -> Node:
        """The node that coordinates every group: there is one partition of offsets."""
        return self.leader("__consumer_offsets", 0)
