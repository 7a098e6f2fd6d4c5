"""One consumer process on real parts, as end-to-end tests want it: topics, view prefix, photos, a random model."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.support.broker import TopicNames
from tests.support.listings import Mix
from tests.support.service import ServiceProcess
from tests.support.tiny import make_tiny_bundle
from training.shop.photo_host import PhotoHost

SEND_S = 60


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def photos() -> Iterator[str]:
    """Address of a real HTTP host that has a JPEG at /<n>.jpg."""
    with PhotoHost(_photo) as host:
        yield host.base_url


def _photo(name: str) -> bytes:
    seed = int(Path(name).stem)
    noise = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    body = io.BytesIO()
    Image.fromarray(noise).save(body, "JPEG")
    return body.getvalue()


@dataclass(frozen=True, slots=True)
class Bench:
    """What one end-to-end test works with."""

    bootstrap: str
    topics: TopicNames
    view_url: str
    view_prefix: str
    group: str
    service: ServiceProcess
    photos: str

    def send(self, mix: Mix) -> "subprocess.Popen[bytes]":
        """Start a process that sends the mix, as another team's program would."""
        given = ["--bootstrap", self.bootstrap, "--topic", self.topics.input, "--photos", mix.photos]
        for name in ("count", "updates", "deletions", "bad", "seed"):
            given += [f"--{name}", str(getattr(mix, name))]
        return subprocess.Popen([sys.executable, "-m", "tests.support.listings", *given], stdout=subprocess.DEVNULL)

    def send_and_wait(self, mix: Mix) -> None:
        """The same, to its end."""
        assert self.send(mix).wait(SEND_S) == 0


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(
    valkey_url: str, view_prefix: str, group_id: str, photos: str, tiny_bundle: Path, tmp_path: Path
) -> Iterator[MakeBench]:
    """Make a bench whose service is not started yet; takes more environment for it. Whatever runs is ended after.

    With `stub=True` the service runs on a model without torch: a start takes a second instead of ten.
    """
    made: list[ServiceProcess] = []

    def make(bootstrap: str, topics: TopicNames, *, stub: bool = False, **more: str) -> Bench:
        env = {
            "MMCAT_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "MMCAT_KAFKA__GROUP_ID": group_id,
            "MMCAT_KAFKA__HEARTBEAT_INTERVAL_MS": "300",
            "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "6000",  # how long a killed member keeps its partitions
            "MMCAT_VIEW__URL": valkey_url,
            "MMCAT_VIEW__PREFIX": view_prefix,
            "MMCAT_MODEL__BUNDLE": str(tiny_bundle),
            "MMCAT_MODEL__DEVICE": "cpu",
            "MMCAT_MODEL__THREADS": "1",
            "MMCAT_PHOTO__ALLOW": "127.0.0.1",
            "MMCAT_PHOTO__PORTS": str(urlsplit(photos).port),
            **topics.env(),
            **more,
        }
        program = "tests.support.stub_service" if stub else "mmcat.cli"
        service = ServiceProcess(env, tmp_path, (sys.executable, "-m", program, "consume"))
        made.append(service)
        return Bench(bootstrap, topics, env["MMCAT_VIEW__URL"], view_prefix, group_id, service, photos)

    yield make
    for service in made:
        service.__exit__(None, None, None)


@pytest.fixture
def bench(kafka: str, topics: TopicNames, make_bench: MakeBench) -> Bench:
    """A bench on any real broker, with the program as it is."""
    return make_bench(kafka, topics)


@pytest.fixture
def slow_bench(kafka: str, topics: TopicNames, make_bench: MakeBench) -> Bench:
    """A bench whose service holds a hundred listings, needs 150 ms a batch, and commits all the time: it can be caught
    in the middle, with work done, work committed, and work in flight."""
    slow = {
        "MMCAT_LIMITS__IN_FLIGHT_LISTINGS": "100",
        "MMCAT_TEST_MODEL_MS": "150",
        "MMCAT_COMMIT_INTERVAL_S": "0.1",
    }
    return make_bench(kafka, topics, stub=True, **slow)
