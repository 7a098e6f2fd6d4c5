"""The manifests against the program: its settings, commands, probes and deadlines; and how it is scaled."""

import importlib
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer

from consumer.ending import COMMIT_S, LEAVE_S
from consumer.health import Health, HealthServer
from consumer.kafka import transactional_id
from consumer.metrics import Metrics
from mmcat.cli.root import COMMANDS
from tests.benchmarks.capacity import Inputs, capacity
from tests.support.kustomize import containers, pod_spec
from tests.support.manifests import (
    FOLDER,
    Rendered,
    bytes_of,
    consumer_of,
    environment,
    named,
    of,
    overlays,
    partitions,
    rendered_by,
    settings_of,
    workloads,
)

MIB = 2**20
PAGE = FOLDER.parents[1] / "docs" / "operations.md"
KAFKA_PROPERTIES = {
    "session.timeout.ms", "heartbeat.interval.ms", "security.protocol", "sasl.mechanism", "sasl.username",
    "sasl.password", "ssl.ca.location",
}  # fmt: skip


def test_every_variable_is_a_setting_and_all_together_are_good(rendered: Rendered, tmp_path: Path) -> None:
    for one in workloads(rendered):
        for container in containers(one):
            given = environment(rendered, container, tmp_path)
            assert all(name.startswith("MMCAT_") for name in given), named(one)
            # An unknown or wrong setting is a ConfigError; of Kafka's properties any would pass.
            assert set(settings_of(rendered, container, tmp_path).kafka.properties()) <= KAFKA_PROPERTIES, named(one)


def test_every_command_is_one(rendered: Rendered) -> None:
    for one in workloads(rendered):
        for container in containers(one):
            assert "command" not in container, "the image's own entry point is the program"
            first, *rest = container["args"]
            [entry] = [command for command in COMMANDS if command.name == first]
            module = importlib.import_module(f"mmcat.cli.{entry.module}")
            command: Any = typer.main.get_command(module.app)
            context = command.make_context(first, list(rest))
            if hasattr(command, "resolve_command"):
                name, sub, left = command.resolve_command(context, [*context._protected_args, *context.args])
                sub.make_context(name, left)


def test_probes_ask_for_what_is_there(rendered: Rendered, tmp_path: Path) -> None:
    server = HealthServer(Health(), Metrics().registry, "127.0.0.1", 0)
    port = server.start()
    try:
        monitors = [one for one in rendered if one["kind"] == "PodMonitor"]
        paths = {end["path"] for one in monitors for end in one["spec"]["podMetricsEndpoints"]}
        for one in workloads(rendered):
            for container in containers(one):
                paths |= {container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
                for port_ in container.get("ports", ()):
                    http = settings_of(rendered, container, tmp_path).http
                    assert (http.host, http.port) == ("0.0.0.0", port_["containerPort"]), named(one)
        assert paths >= {"/healthz", "/readyz"}
        for path in paths:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                assert answer.status == 200, path
    finally:
        server.stop()


def test_a_pod_is_given_longer_than_the_service_takes_to_end(rendered: Rendered, tmp_path: Path) -> None:
    for one in (of(rendered, "StatefulSet"), of(rendered, "Deployment", "mmcat-cache-writer")):
        spec = pod_spec(one)
        assert spec is not None
        settings = settings_of(rendered, spec["containers"][0], tmp_path)
        assert spec["terminationGracePeriodSeconds"] > settings.shutdown_s + COMMIT_S + LEAVE_S, named(one)


def test_instances_have_static_ids_that_outlive_a_restart(rendered: Rendered, tmp_path: Path) -> None:
    container = consumer_of(rendered)
    settings = settings_of(rendered, container, tmp_path)
    assert settings.kafka.instance_id == "mmcat-3", "the pod's name"
    assert transactional_id(settings.kafka) == "mmcat-mmcat-3"
    session_s = int(settings.kafka.properties()["session.timeout.ms"]) / 1000
    assert session_s > settings.shutdown_s + COMMIT_S + LEAVE_S + 60, "drain, and a minute to load and make graphs"
    assert int(settings.kafka.properties()["heartbeat.interval.ms"]) * 3 <= session_s * 1000
    [writer] = containers(of(rendered, "Deployment", "mmcat-cache-writer"))
    assert settings_of(rendered, writer, tmp_path).kafka.instance_id is None, "its pods' names never come back"


def test_the_view_is_written_by_one_kind_of_pod(rendered: Rendered, tmp_path: Path) -> None:
    container = consumer_of(rendered)
    assert settings_of(rendered, container, tmp_path).view.enabled is False
    assert of(rendered, "Deployment", "mmcat-cache-writer")["spec"]["replicas"] >= 2


def test_threads_and_memory_fit_the_limits(rendered: Rendered, tmp_path: Path) -> None:
    container = consumer_of(rendered)
    settings, limits = settings_of(rendered, container, tmp_path), container["resources"]["limits"]
    assert settings.model.threads is not None, "a process in a container sees the cores of its node"
    assert settings.model.threads <= int(limits["cpu"])
    model_mib = 3 * 1024  # 2.4 GB at the peak with the research code's shape: decision 0016
    held = model_mib * MIB + settings.limits.in_flight_bytes + 2 * settings.batch.max_bytes
    assert held < bytes_of(limits["memory"])
    assert container["resources"]["requests"]["memory"] == limits["memory"]
    on_gpu = "nvidia.com/gpu" in limits
    assert (settings.model.device == "cuda") == on_gpu


def scaled() -> list[Rendered]:
    found = map(rendered_by, overlays())
    return [objects for objects in found if any(one["kind"] == "ScaledObject" for one in objects)]


@pytest.mark.parametrize("objects", scaled())
def test_scaling_does_not_shake_the_group(objects: Rendered, tmp_path: Path) -> None:
    spec = of(objects, "ScaledObject")["spec"]
    container = consumer_of(objects)
    settings = settings_of(objects, container, tmp_path)
    assert "replicas" not in of(objects, "StatefulSet")["spec"], "an apply would undo what KEDA chose"
    assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] <= partitions(objects)
    assert spec["fallback"]["replicas"] >= spec["minReplicaCount"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    [kafka] = [one["metadata"] for one in spec["triggers"] if one["type"] == "kafka"]
    assert kafka["topic"] == settings.topics.input, "the lag of the delay topics is meant"
    assert kafka["consumerGroup"] == settings.kafka.group_id
    assert kafka["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert kafka["offsetResetPolicy"] == "earliest", "as the service begins without an offset"
    assert kafka["limitToPartitionsWithLag"] == kafka["excludePersistentLag"] == "true"
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    [down] = behavior["scaleDown"]["policies"]
    session_s = int(settings.kafka.properties()["session.timeout.ms"]) / 1000
    assert (down["type"], down["value"]) == ("Pods", 1)
    assert down["periodSeconds"] >= 3 * session_s, "one goes when the last one's partitions are long worked again"
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= down["periodSeconds"]
    up_s = [policy["periodSeconds"] for policy in behavior["scaleUp"]["policies"]]
    startup = container["startupProbe"]
    assert 120 <= min(up_s) <= startup["periodSeconds"] * startup["failureThreshold"]


@pytest.mark.parametrize("objects", scaled())
def test_scaling_follows_the_measured_rates(objects: Rendered) -> None:
    spec, limits = of(objects, "ScaledObject")["spec"], consumer_of(objects)["resources"]["limits"]
    [kafka] = [one["metadata"] for one in spec["triggers"] if one["type"] == "kafka"]
    if "nvidia.com/gpu" in limits:
        assert [one["type"] for one in spec["triggers"]] == ["kafka"], "a busy GPU does not show in the CPU"
        return
    given = Inputs()
    planned = capacity(given)
    assert int(kafka["lagThreshold"]) == pytest.approx(120 * given.cpu_rate * int(limits["cpu"]), rel=0.1)
    [busy] = [one["metadata"]["value"] for one in spec["triggers"] if one["type"] == "cpu"]
    assert int(busy) == pytest.approx(100 * given.busy)
    assert given.cores == int(limits["cpu"])
    assert spec["minReplicaCount"] >= planned.mean.instances
    assert spec["maxReplicaCount"] >= planned.peak.instances
    assert partitions(objects) == planned.partitions


def test_there_are_no_more_instances_than_partitions_and_one_goes_at_a_time(rendered: Rendered) -> None:
    assert of(rendered, "StatefulSet")["spec"].get("replicas", 0) <= partitions(rendered)
    for budget in (one for one in rendered if one["kind"] == "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_page_for_operators_names_what_is_there() -> None:
    text = PAGE.read_text("utf-8")
    families = {family.name for family in Metrics().registry.collect()}
    named_there = set(re.findall(r"\bmmcat_[a-z_]+", text))
    unknown = {one for one in named_there if re.sub(r"_(total|bucket)$", "", one) not in families}
    assert not unknown, "alarms on numbers that the service does not show"
    for folder in ("components", "overlays"):
        for path in (FOLDER / folder).iterdir():
            assert f"`{path.name}`" in text, f"{folder}/{path.name}"
    keys = {reference["key"] for name in overlays() for one in workloads(rendered_by(name))
            for container in containers(one) for variable in container.get("env", ())
            if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))}  # fmt: skip
    assert all(f"{key}=" in text for key in keys)
