"""Photos by https through an egress proxy: a tunnel, TLS to the photo host in it, its certificate checked for its name;
and the proxy is asked for nothing that the rules refuse."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import MakeBench
from tests.support.broker import TopicNames, read_topic, send
from tests.support.outcomes import drained
from tests.support.proxy import ConnectProxy, Proxy, make_certificate

pytestmark = pytest.mark.integration


@pytest.fixture
def egress(photos: str, tmp_path: Path) -> Iterator[tuple[ConnectProxy, Path]]:
    """The proxy, and the certificates that are trusted: of `photos` and `elsewhere`. What is asked for as `renamed`
    is `elsewhere`; nobody vouches for `unknown`."""
    port = urlsplit(photos).port
    assert port is not None
    trusted, hosts = tmp_path / "trusted.pem", {}
    with ExitStack() as stack:
        for host in ("photos", "elsewhere", "unknown"):
            certificate = make_certificate(tmp_path / host, f"DNS:{host}.example")
            hosts[f"{host}.example:443"] = stack.enter_context(Proxy(port, certificate)).port
            if host != "unknown":
                with trusted.open("a", encoding="ascii") as file:
                    file.write(certificate.ca.read_text(encoding="ascii"))
        hosts["renamed.example:443"] = hosts["elsewhere.example:443"]
        yield stack.enter_context(ConnectProxy(hosts)), trusted


def test_https_photos_come_through_a_tunnel_and_only_from_whom_they_say(
    kafka: str, topics: TopicNames, make_bench: MakeBench, egress: tuple[ConnectProxy, Path]
) -> None:
    proxy, trusted = egress
    bench = make_bench(
        kafka,
        topics,
        stub=True,
        MMCAT_PHOTO__PROXY=f"http://127.0.0.1:{proxy.port}",
        MMCAT_PHOTO__PORTS="443",
        MMCAT_PHOTO__ALLOW="",
        SSL_CERT_FILE=str(trusted),
    )
    path = f"{urlsplit(bench.photos).path}/1.jpg"
    wanted = {
        f"https://photos.example{path}": "used",
        f"https://elsewhere.example{path}": "used",
        f"https://renamed.example{path}": "unavailable",
        f"https://unknown.example{path}": "unavailable",
        f"https://forbidden.example{path}": "refused",  # by the proxy
        f"https://photos.example:8443{path}": "refused",  # by us, as all that follow
        f"https://127.0.0.1{path}": "refused",
        "https://169.254.169.254/latest/meta-data": "refused",
        "https://metadata.google.internal/": "refused",
    }
    events = {b"p%d" % number: url for number, url in enumerate(wanted)}
    with bench.service as service:
        service.wait_ready()
        values = [{"product_id": key.decode(), "title": "a", "image_url": url} for key, url in events.items()]
        send(kafka, topics.input, [(one["product_id"].encode(), json.dumps(one).encode(), {}) for one in values])
        service.until(lambda: drained(kafka, topics, bench.group), "all is committed")
        assert service.terminate() == 0
    found = {one.key: json.loads(one.value or b"")["image"] for one in read_topic(kafka, topics.output)}
    assert {url: found[key] for key, url in events.items()} == wanted
    tunnels = ("photos", "elsewhere", "renamed", "unknown", "forbidden")
    assert set(proxy.asked) == {f"CONNECT {host}.example:443" for host in tunnels}
