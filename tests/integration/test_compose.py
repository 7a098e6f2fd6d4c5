"""The compose file and the image, as far as they can be shown without a Docker engine.

The file is checked against the compose schema; then each of our services is run here by its own command with its own
environment, on local servers, with a root that is read-only: only the names of hosts, ports and folders are replaced.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmcat.cli.processes import free_port
from tests.support import read_only
from tests.support.broker import TopicNames, random_topics, read_topic
from tests.support.service import ServiceProcess
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
ENOUGH = 12


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def ours() -> dict[str, Any]:
    return {name: service for name, service in services().items() if "build" in service}


def test_the_compose_file_is_one_by_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_dependency_waits_for_a_condition_that_can_come_true() -> None:
    for name, service in services().items():
        for wanted, how in service.get("depends_on", {}).items():
            other = services()[wanted]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in other, f"{name} waits for the health of {wanted}"
            if other.get("profiles") and not set(service.get("profiles", ())) & set(other["profiles"]):
                assert how.get("required") is False, f"{name} would not start without the profile of {wanted}"


def test_profiles_are_those_that_the_readme_names() -> None:
    assert {profile for service in services().values() for profile in service.get("profiles", ())} == {"demo", "gpu"}


def test_images_are_pinned_and_ours_are_locked_down() -> None:
    for name, service in services().items():
        assert re.search(r":\d+\.\d+|\$\{", service["image"]), f"{name}: {service['image']}"
    for name, service in ours().items():
        assert service["user"] == "10001:10001", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name


def test_ports_are_open_to_this_machine_alone() -> None:
    for name, service in services().items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_the_image_is_run_by_nobody_special_and_names_no_index() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001:10001"]
    assert not re.search(r"https?://", text)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    sources = {word for line in copied for word in line.split()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def resolved(text: str) -> str:
    """The text with the defaults of its variables, as compose fills them in where none is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def writable(service: dict[str, Any]) -> set[str]:
    """Where a service may write: its root is read-only."""
    volumes = [resolved(volume).split(":") for volume in service.get("volumes", ())]
    mounted = {target for _, target, *mode in volumes if mode != ["ro"]}
    return mounted | {folder.partition(":")[0] for folder in service["tmpfs"]}


def home_in_image() -> str:
    [home] = re.findall(r"MMCAT_HOME=(\S+)", DOCKERFILE.read_text(encoding="utf-8"))
    return str(home)


def test_every_service_may_write_its_home_and_temporary_files_and_owns_what_is_mounted() -> None:
    [made] = re.findall(r"install -d -o mmcat -g mmcat (.+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    for name, service in ours().items():
        assert {"/tmp", home_in_image()} <= writable(service), name  # noqa: S108  the container's
        assert writable(service) - {"/tmp"} <= set(made.split()), f"{name}: a volume begins as the folder that it hides"  # noqa: S108
    assert "/bundles" in writable(ours()["bundle"])
    assert "/bundles" not in writable(ours()["consumer"])


class Local:
    """Compose's network and volumes, as they are here."""

    def __init__(
        self, kafka: str, valkey_url: str, folder: Path, bundles: Path, topics: TopicNames, prefix: str
    ) -> None:
        self.http, self.photos = free_port(), free_port()
        self._mounts = {"/tmp": folder / "tmp", home_in_image(): folder / "home", "/bundles": bundles}  # noqa: S108
        for mount in self._mounts.values():
            mount.mkdir(exist_ok=True)
        self._names = {
            "kafka:19092": kafka,
            "redis://valkey:6379/0": valkey_url,
            '["photos"]': '["127.0.0.1/32"]',
            "photos:8088": f"127.0.0.1:{self.photos}",
            "0.0.0.0": "127.0.0.1",
            "8088": str(self.photos),
            "8080": str(self.http),
            "/bundles": str(bundles),
        }
        # Beside what compose sets: names that no other test uses.
        self._more = {**topics.env(), "MMCAT_VIEW__PREFIX": prefix, "MMCAT_KAFKA__GROUP_ID": prefix}

    def _here(self, text: str) -> str:
        text = resolved(text)
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text

    def command(self, name: str) -> tuple[str, ...]:
        """As compose has it, on a root that is read-only but for what compose mounts."""
        mounted = [str(self._mounts[folder]) for folder in writable(ours()[name])]
        given = [self._here(word) for word in ours()[name]["command"]]
        python = (sys.executable, "-m")
        return (*python, "tests.support.read_only", *mounted, "--", *python, "mmcat.cli", *given)

    def env(self, name: str) -> dict[str, str]:
        """As compose and the image have it."""
        given = {key: self._here(value) for key, value in ours()[name].get("environment", {}).items()}
        home = str(self._mounts[home_in_image()])
        image = {"MMCAT_HOME": home, "HOME": home, "TMPDIR": str(self._mounts["/tmp"])}  # noqa: S108
        # What tests set for their speed and compose does not: making an engine writes.
        return {"MMCAT_MODEL__ENGINE": "auto", "PYTHONDONTWRITEBYTECODE": "1", **image, **given, **self._more}

    def service(self, name: str, folder: Path) -> ServiceProcess:
        (folder / name).mkdir()
        return ServiceProcess(self.env(name), folder / name, self.command(name), http_port=self.http)

    def health(self, name: str) -> bool:
        """Whether the service's own health check says it is well."""
        [_, _, *command] = map(self._here, ours()[name]["healthcheck"]["test"])
        return subprocess.run([sys.executable, *command], capture_output=True, check=False).returncode == 0

    def run(self, name: str) -> "subprocess.CompletedProcess[str]":
        outside = {key: value for key, value in os.environ.items() if not key.startswith("MMCAT_")}
        environment = {**outside, **self.env(name)}
        return subprocess.run(
            self.command(name), env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.skipif(not read_only.supported(), reason="a read-only root is shown by Landlock, of Linux 6.2")
def test_each_service_runs_by_its_own_command_and_environment(
    kafka: str, valkey_url: str, view_prefix: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundles, topics = tmp_path / "bundles", random_topics()
    bundles.mkdir()
    (bundles / "cross").symlink_to(tiny_bundle)
    local = Local(kafka, valkey_url, tmp_path, bundles, topics, view_prefix)
    for name in ("topics", "bundle"):
        done = local.run(name)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    consumer, photos = local.service("consumer", tmp_path), local.service("photos", tmp_path)
    with photos, consumer, local.service("simulator", tmp_path) as simulator:
        photos.until(lambda: local.health("photos"), "the photo host is well by its own check", 120)
        consumer.until(lambda: local.health("consumer"), "the consumer is well by its own check", 120)
        consumer.wait_ready()
        used = "mmcat_photo_total"
        consumer.until(lambda: (consumer.metric(used, status="used") or 0) >= ENOUGH, "photos were used", 120)
        assert simulator.terminate() == 128 + signal.SIGTERM
        assert consumer.terminate() == 0
        assert photos.terminate() == 128 + signal.SIGTERM
    written = eventually(lambda: read_topic(kafka, topics.output), "results are in the topic")
    assert len({record.key for record in written}) >= ENOUGH
    assert list((tmp_path / "home" / "engines").iterdir()), "what the consumer made for its next start is kept"


def test_every_service_of_ours_is_run_by_the_test_above() -> None:
    run = {"topics", "bundle", "consumer", "photos", "simulator"}
    assert {name for name in ours() if not name.endswith("-gpu")} == run
    assert services()["consumer-gpu"]["command"] == services()["consumer"]["command"]
