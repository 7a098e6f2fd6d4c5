"""The demo as people run it: a process of its own on real servers, its figures, and nothing left when it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from tests.support.tiny import make_tiny_bundle
from tests.support.waiting import eventually
from training.shop.catalogue import taxonomy

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEYS = (
    *("events", "listings", "categorized", "tombstones", "dead_lettered", "cached", "path_accuracy"),
    *("baseline_accuracy", "image", "latency_ms", "listings_per_second", "seconds", "engine", "broker", "view"),
    "bundle",
)


@pytest.fixture(scope="module")
def shop_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four bundles of a shop demo, with random weights: what the demo does is real, its answers are not."""
    folder = tmp_path_factory.mktemp("bundles")
    make_tiny_bundle(folder / "cross", taxonomy=taxonomy())
    make_tiny_bundle(folder / "concat", taxonomy=taxonomy(), fusion="concat")
    make_tiny_bundle(folder / "text", taxonomy=taxonomy(), modality="text")
    make_tiny_bundle(folder / "image", taxonomy=taxonomy(), modality="image")
    return folder


@contextmanager
def demo(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the demo in a session of its own, as a terminal would; its temporary files go under `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMCAT_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmcat.cli", "demo", "--device", "cpu", *options],
        env={**environment, "TMPDIR": str(folder), "MMCAT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def checked(summary: dict[str, object], listings: int) -> None:
    """What holds of every demo, whatever its model knows."""
    counts = ("events", "listings", "categorized", "tombstones", "dead_lettered", "cached")
    assert [summary[name] for name in counts] == [listings + 4, listings, listings + 1, 1, 2, listings]
    assert set(KEYS) == set(summary)
    baselines, image, latency = summary["baseline_accuracy"], summary["image"], summary["latency_ms"]
    assert isinstance(baselines, dict)
    assert set(baselines) == {"text", "image", "concat"}
    assert isinstance(image, dict)
    assert sum(image.values()) == listings + 1
    assert image["used"] > listings // 2
    assert isinstance(latency, dict)
    assert 0 < latency["p50"] <= latency["p99"]


def test_a_demo_gives_every_figure_and_stdout_holds_nothing_else(shop_bundles: Path, tmp_path: Path) -> None:
    with demo(tmp_path, "--listings", "24", "--bundles", str(shop_bundles), "--json") as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    summary = json.loads(out)
    checked(summary, 24)
    assert "end offsets (so no lag)" in summary["broker"]["lacks"]
    assert summary["bundle"]["path"] == str(shop_bundles / "cross")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mmcat-")] == []


def test_a_demo_on_a_broker_that_runs_leaves_no_topic_behind(kafka: str, shop_bundles: Path, tmp_path: Path) -> None:
    options = ("--listings", "10", "--broker", kafka, "--bundles", str(shop_bundles), "--json")
    with demo(tmp_path, *options) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    checked(json.loads(out), 10)
    admin = AdminClient({"bootstrap.servers": kafka})
    gone = lambda: not [name for name in admin.list_topics(timeout=10).topics if name.startswith("mmcat-")]  # noqa: E731
    eventually(gone, "the demo's topics are deleted")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_running(
    sent: signal.Signals, code: int, shop_bundles: Path, tmp_path: Path
) -> None:
    options = ("--listings", "400", "--rate", "4", "--bundles", str(shop_bundles), "--json")
    with demo(tmp_path, *options) as process:
        children = _when_streaming(process)
        os.killpg(process.pid, sent)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert not out
    assert not [child for child in children if child.is_running()]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mmcat-")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_a_killed_demo_takes_its_children_with_it(shop_bundles: Path, tmp_path: Path) -> None:
    options = ("--listings", "400", "--rate", "4", "--bundles", str(shop_bundles), "--json")
    with demo(tmp_path, *options) as process:
        children = _when_streaming(process)
        process.kill()
        process.wait()
        eventually(lambda: not [one for one in children if one.is_running()], "the children are gone", 30)


def _when_streaming(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Wait for the first line of progress; returns the demo's children: broker, cache and consumer at least."""
    assert process.stderr is not None
    for line in process.stderr:
        if "/401 listings" in line:
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 3
            return children
    raise AssertionError(f"the demo ended with {process.wait()} before it streamed")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--broker", "rabbit"), "--broker is tansu, kafka or HOST:PORT"),
        (("--broker", "127.0.0.1:1"), "no broker answers"),
        (("--data", "/nowhere"), "/nowhere"),
    ],
)
def test_what_a_demo_cannot_do_is_one_sentence(
    options: tuple[str, str], said: str, shop_bundles: Path, tmp_path: Path
) -> None:
    with demo(tmp_path, "--bundles", str(shop_bundles), *options) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert not out
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_temporary_files_of_a_test_go_where_it_looks(tmp_path: Path) -> None:
    """Guards the tests above: the demo asks `tempfile`, and `tempfile` asks TMPDIR."""
    script = "import tempfile; print(tempfile.gettempdir())"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path) != tempfile.gettempdir()
