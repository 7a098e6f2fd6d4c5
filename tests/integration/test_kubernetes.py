"""Each container of deploy/kubernetes, run here by its own command with its own environment, on local servers.

Only the names of hosts, folders and topics are replaced, and how many partitions and copies are made. What can be seen
without running anything is in tests/unit/deploy.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmcat.cli.processes import free_port
from tests.support.broker import TopicNames, random_topics, read_topic, send
from tests.support.kustomize import Manifest, containers, pod_spec
from tests.support.listings import Mix, events
from tests.support.manifests import environment, of, rendered_by
from tests.support.service import ServiceProcess

LISTINGS = 24


class Cluster:
    """The overlay `plain`, with its network and volumes as they are here."""

    def __init__(self, kafka: str, valkey_url: str, bundle: Path, topics: TopicNames, prefix: str, home: Path) -> None:
        self.objects, self._home = rendered_by("plain"), home
        self._names = {
            "kafka-bootstrap.kafka:9092": kafka,
            "redis://redis.redis:6379/0": valkey_url,
            "/bundles/cross": str(bundle),
            "http://egress-proxy.egress:3128": f"http://127.0.0.1:{free_port()}",  # nobody there: no photo is asked for
            "0.0.0.0": "127.0.0.1",
        }
        self._more = {**topics.env(), "MMCAT_VIEW__PREFIX": prefix, "MMCAT_KAFKA__GROUP_ID": prefix}

    def command(self, manifest: Manifest) -> tuple[str, ...]:
        here = {"128": "6", "3": "1"} if manifest["kind"] == "Job" else {}
        [container] = containers(manifest)
        return (sys.executable, "-m", "mmcat.cli", *(here.get(word, word) for word in container["args"]))

    def env(self, manifest: Manifest) -> dict[str, str]:
        [container] = containers(manifest)
        given = environment(self.objects, container, self._home)
        given = {name: self._names.get(value, value) for name, value in given.items() if value != "secret"}
        return {**given, **self._more}

    def pod(self, kind: str, name: str) -> ServiceProcess:
        manifest, folder, port = of(self.objects, kind, name), self._home / name, free_port()
        folder.mkdir()
        env = self.env(manifest) | {"MMCAT_HTTP__PORT": str(port)}
        return ServiceProcess(env, folder, self.command(manifest), http_port=port)

    def run(self, kind: str, name: str) -> "subprocess.CompletedProcess[str]":
        manifest = of(self.objects, kind, name)
        outside = {key: value for key, value in os.environ.items() if not key.startswith("MMCAT_")}
        environment = {**outside, **self.env(manifest), "MMCAT_HOME": str(self._home / "home")}
        return subprocess.run(
            self.command(manifest), env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    def grace_s(self, kind: str, name: str) -> float:
        spec = pod_spec(of(self.objects, kind, name))
        assert spec is not None
        return float(spec["terminationGracePeriodSeconds"])


@pytest.mark.integration
@pytest.mark.slow
def test_topics_service_view_and_check_work_together_as_the_manifests_say(
    apache_kafka: str, valkey_url: str, view_prefix: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    topics = random_topics()
    cluster = Cluster(apache_kafka, valkey_url, tiny_bundle, topics, view_prefix, tmp_path)
    made = cluster.run("Job", "mmcat-topics")
    assert made.returncode == 0, made.stderr
    service, writer = cluster.pod("StatefulSet", "mmcat"), cluster.pod("Deployment", "mmcat-cache-writer")
    with service, writer:
        service.wait_ready()
        writer.wait_ready()
        send(apache_kafka, topics.input, ((one.key, one.value, one.headers) for one in events(Mix(LISTINGS))))
        written = "mmcat_view_writes_total"
        writer.until(lambda: (writer.metric(written, outcome="written") or 0) >= LISTINGS, "all is in the view")
        assert service.metric(written, outcome="written") is None, "the service itself writes no view"
        verified = cluster.run("CronJob", "mmcat-cache-verify")
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["products"] == LISTINGS
        assert service.terminate(cluster.grace_s("StatefulSet", "mmcat")) == 0
        assert writer.terminate(cluster.grace_s("Deployment", "mmcat-cache-writer")) == 0
    assert len({record.key for record in read_topic(apache_kafka, topics.output)}) == LISTINGS
