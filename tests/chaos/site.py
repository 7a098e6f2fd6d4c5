"""The servers that trials share: a broker or three, a Valkey. Each trial has topics, a group and a prefix of its own.

Before trial.py. Rows that take a server away do it here; what they leave is whole again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmcat.cli.servers import LocalKafka, LocalValkey
from tests.chaos.cluster import Cluster
from tests.support.broker import warm_groups


@dataclass(frozen=True, slots=True)
class Site:
    """Where trials take place.

    Args:
        valkey: None where the view belongs to somebody else; rows that take it away need it.
        cluster: None with one broker.
    """

    bootstrap: str
    view_url: str
    valkey: LocalValkey | None = None
    cluster: Cluster | None = None

    @property
    def replication(self) -> int:
        """How many copies of a topic there are."""
        return 3 if self.cluster else 1


@contextmanager
def open_site(logs: Path, *, brokers: int) -> Iterator[Site]:
    """Start the servers of one site; one broker or three."""
    with LocalValkey(logs=logs) as valkey:
        if brokers == 1:
            with LocalKafka(logs=logs) as broker:
                warm_groups(broker.bootstrap)
                yield Site(broker.bootstrap, valkey.url, valkey)
        else:
            with Cluster(logs) as cluster:
                warm_groups(cluster.bootstrap)
                yield Site(cluster.bootstrap, valkey.url, valkey, cluster)
