"""The manifests of deploy/kubernetes for its tests: each overlay as it is rendered, and what its containers see."""

from pathlib import Path

from consumer.loading import load
from consumer.settings import Settings
from tests.support.kustomize import Manifest, containers, pod_spec, render

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"

Rendered = list[Manifest]


def overlays() -> dict[str, Path]:
    """Folder by name."""
    found = {path.name: path for path in sorted((FOLDER / "overlays").iterdir())}
    return found | {"direct": FOLDER / "overlays" / "plain"}


def rendered_by(name: str) -> Rendered:
    """The objects of an overlay; `direct` is one that takes the component that no overlay does."""
    objects = render(overlays()[name])
    return render(FOLDER / "components" / "direct-photos", objects) if name == "direct" else objects


def of(rendered: Rendered, kind: str, name: str = "mmcat") -> Manifest:
    """The one object of that kind and name."""
    [found] = [one for one in rendered if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workloads(rendered: Rendered) -> Rendered:
    """What makes pods."""
    return [one for one in rendered if pod_spec(one) is not None]


def named(manifest: Manifest) -> str:
    """For messages."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def environment(rendered: Rendered, container: Manifest, folder: Path) -> dict[str, str]:
    """What the container's process sees; secrets and mounted files are stood in for."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= of(rendered, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container.get("env", ()):
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[one["name"]] = one["value"] if "value" in one else {"metadata.name": "mmcat-3", None: "secret"}[field]
    secret = folder / "secret"
    secret.write_text("from a file\n")
    return {name: str(secret) if value.startswith("/run/secrets/") else value for name, value in found.items()}


def settings_of(rendered: Rendered, container: Manifest, folder: Path) -> Settings:
    """What the program makes of that."""
    return load(environment=environment(rendered, container, folder))[0]


def bytes_of(quantity: str) -> int:
    """Kubernetes' quantities of memory."""
    return int(quantity[:-2]) * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[quantity[-2:]]


def consumer_of(rendered: Rendered) -> Manifest:
    """The service's container."""
    [found] = containers(of(rendered, "StatefulSet"))
    return found


def partitions(rendered: Rendered) -> int:
    """How many the topics are made with."""
    [container] = containers(of(rendered, "Job", "mmcat-topics"))
    return int(container["args"][container["args"].index("--partitions") + 1])
