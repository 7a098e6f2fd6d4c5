"""Renders the part of kustomize that `deploy/kubernetes` uses, so that it can be looked at where there is no kubectl.

Resources, components, JSON patches with a target, images and the namespace; anything else is refused, so that nothing
is silently left out. A test compares it with `kubectl kustomize` where that is there.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches", "images"}


def render(folder: Path, given: Sequence[Manifest] = ()) -> list[Manifest]:
    """The objects of a kustomization.

    Args:
        given: what the kustomization that names this one, a component, has already.

    Raises:
        ValueError: it uses what this does not know, or a patch that meets nothing.
    """
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    if unknown := set(spec) - KNOWN:
        raise ValueError(
            f"{folder}: {', '.join(sorted(unknown))} is not rendered here: extend tests/support/kustomize.py"
        )
    objects = [copy.deepcopy(one) for one in given]
    for resource in spec.get("resources", ()):
        objects += _resource(folder / resource)
    for component in spec.get("components", ()):
        objects = render(folder / component, objects)
    for patch in spec.get("patches", ()):
        _patch(objects, patch, folder)
    for image in spec.get("images", ()):
        for container in (one for manifest in objects for one in containers(manifest)):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"
    if namespace := spec.get("namespace"):
        for manifest in objects:
            if manifest["kind"] != "Namespace":
                manifest["metadata"]["namespace"] = namespace
    return objects


def pod_spec(manifest: Manifest) -> Manifest | None:
    """The spec of the pods that an object makes; None where it makes none."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: Manifest | None = spec.get("template", {}).get("spec")
    return found


def containers(manifest: Manifest) -> list[Manifest]:
    """All containers of the pods that an object makes."""
    spec = pod_spec(manifest) or {}
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def _resource(path: Path) -> list[Manifest]:
    if path.is_dir():
        return render(path)
    return [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one is not None]


def _patch(objects: Sequence[Manifest], patch: Manifest, folder: Path) -> None:
    kind, name = patch["target"]["kind"], patch["target"].get("name", ".*")
    met = [one for one in objects if re.fullmatch(kind, one["kind"]) and re.fullmatch(name, one["metadata"]["name"])]
    if not met:
        raise ValueError(f"{folder}: a patch of {kind} {name} meets nothing")
    for manifest in met:
        for operation in yaml.safe_load(patch["patch"]):
            _apply(manifest, operation)


def _apply(manifest: Manifest, operation: Manifest) -> None:
    """One operation of RFC 6902: add, replace or remove."""
    *steps, last = _steps(operation["path"])
    place: Any = manifest
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    value = copy.deepcopy(operation.get("value"))
    match operation["op"], place:
        case "add", list():
            place.insert(len(place) if last == "-" else int(last), value)
        case "add", _:
            place[last] = value
        case "replace", _:
            place[_there(place, last)] = value
        case "remove", _:
            del place[_there(place, last)]
        case other, _:
            raise ValueError(f"the patch operation {other} is not rendered here")


def _there(place: Any, step: str) -> Any:
    where = int(step) if isinstance(place, list) else step
    place[where]  # a KeyError or IndexError where there is nothing, as kustomize refuses it
    return where


def _steps(pointer: str) -> Iterator[str]:
    return (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
