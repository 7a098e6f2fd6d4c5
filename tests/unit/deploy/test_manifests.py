"""The manifests by Kubernetes' own schemas, and against each other: as far as they can be shown without a cluster."""

import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.custom_resources import SCHEMAS
from tests.support.kustomize import containers, pod_spec, render
from tests.support.manifests import FOLDER, Rendered, consumer_of, named, of, overlays, settings_of, workloads

OLDEST, NEWEST = "1.30", "1.37"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_by_its_schema(rendered: Rendered, version: str) -> None:
    for one in rendered:
        if (schema := SCHEMAS.get((one["apiVersion"], one["kind"]))) is not None:
            jsonschema.validate(one, schema)
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    objects = render(FOLDER / "overlays" / "production")
    scaled, consumer = of(objects, "ScaledObject"), of(objects, "StatefulSet")
    scaled["spec"]["triggers"][0]["metadata"]["lagTreshold"] = "1"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled, SCHEMAS["keda.sh/v1alpha1", "ScaledObject"])
    consumer["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(consumer, NEWEST, strict=True)


if shutil.which("kubectl") is not None:

    @pytest.mark.parametrize("overlay", sorted(set(overlays()) - {"direct"}))
    def test_kubectl_renders_the_same(overlay: str) -> None:
        done = subprocess.run(["kubectl", "kustomize", overlays()[overlay]], capture_output=True, text=True, check=True)
        theirs = {named(one): one for one in yaml.safe_load_all(done.stdout)}
        assert {named(one): one for one in render(overlays()[overlay])} == theirs


def test_all_objects_are_of_one_namespace_and_every_component_is_taken_somewhere(rendered: Rendered) -> None:
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in rendered} == {"mmcat"}
    used = {Path(one).name for path in FOLDER.rglob("kustomization.yaml")
            for one in yaml.safe_load(path.read_text()).get("components", ())}  # fmt: skip
    assert {path.name for path in (FOLDER / "components").iterdir()} == used | {"direct-photos"}


def _pods(rendered: Rendered) -> Iterator[dict[str, str]]:
    for one in workloads(rendered):
        spec = one["spec"].get("jobTemplate", {}).get("spec", one["spec"])
        yield spec["template"]["metadata"]["labels"]


def test_every_selector_finds_pods_and_a_workload_its_own_alone(rendered: Rendered) -> None:
    for one in rendered:
        spec = one.get("spec", {})
        wanted = spec.get("podSelector") or spec.get("selector")
        if not wanted:
            continue
        wanted = wanted.get("matchLabels", wanted)
        met = [labels for labels in _pods(rendered) if wanted.items() <= labels.items()]
        assert met, f"{named(one)} selects no pod"
        if one["kind"] in ("StatefulSet", "Deployment", "PodDisruptionBudget", "Service"):
            assert len(met) == 1, f"{named(one)} selects pods of others too"


def test_names_that_objects_give_each_other_are_there(rendered: Rendered) -> None:
    for one in workloads(rendered):
        spec = pod_spec(one)
        assert spec is not None
        of(rendered, "ServiceAccount", spec["serviceAccountName"])
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in containers(one):
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes, named(one)
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            probes = [container[name] for name in container if name.endswith("Probe")]
            assert {probe["httpGet"]["port"] for probe in probes} <= set(ports), named(one)
    set_, service = of(rendered, "StatefulSet"), of(rendered, "Service")
    assert set_["spec"]["serviceName"] == service["metadata"]["name"]
    for scaled in (one for one in rendered if one["kind"] == "ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]
        assert of(rendered, target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
        for trigger in scaled["spec"]["triggers"]:
            if reference := trigger.get("authenticationRef"):
                of(rendered, "TriggerAuthentication", reference["name"])


def test_every_pod_runs_without_rights(rendered: Rendered) -> None:
    for one in workloads(rendered):
        spec = pod_spec(one)
        assert spec is not None
        assert spec["automountServiceAccountToken"] is False, named(one)
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001), named(one)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, named(one)
        for container in containers(one):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, named(one)
            assert own["allowPrivilegeEscalation"] is False, named(one)
            assert own["capabilities"] == {"drop": ["ALL"]}, named(one)
            assert {"memory"} <= container["resources"]["limits"].keys(), named(one)
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, named(one)  # noqa: S108
            assert ":" in container["image"].removesuffix(":latest"), named(one)


def test_nothing_may_reach_the_metadata_address_or_the_inside_by_its_number(rendered: Rendered) -> None:
    inside = map(ipaddress.ip_address, ("169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.100.100.200"))
    policies = [one for one in rendered if one["kind"] == "NetworkPolicy"]
    rules = [rule for one in policies for rule in one["spec"].get("egress", ())]
    assert all(rule["to"] and rule["ports"] for rule in rules), "a rule without an end is open to all"
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    for address in inside:
        for block in blocks:
            closed = [ipaddress.ip_network(one) for one in block.get("except", ())]
            assert any(address in one for one in closed), f"{address} can be reached"
    assert all(set(one["spec"]["policyTypes"]) >= {"Egress"} for one in policies)
    [whole] = [one for one in policies if one["metadata"]["name"] == "mmcat"]
    wanted = whole["spec"]["podSelector"]["matchLabels"].items()
    assert all(wanted <= labels.items() for labels in _pods(rendered)), "a pod that no policy closes"


def test_what_pods_are_told_to_reach_the_network_lets_through(rendered: Rendered, tmp_path: Path) -> None:
    policies = [one for one in rendered if one["kind"] == "NetworkPolicy"]
    open_ports = {(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
                  for one in policies for rule in one["spec"]["egress"] for peer in rule["to"]
                  if "namespaceSelector" in peer for port in rule["ports"]}  # fmt: skip
    container = consumer_of(rendered)
    settings = settings_of(rendered, container, tmp_path)
    addresses = [settings.kafka.bootstrap_servers, settings.view.url.get_secret_value()]
    addresses += [settings.photo.proxy.get_secret_value()] if settings.photo.proxy else []
    for address in addresses:
        host, _, port = address.rpartition("//")[2].partition("/")[0].partition(":")
        assert (host.split(".")[1], int(port)) in open_ports, address
