"""The way to the view: TLS, whom it believes, users and passwords, and a failover behind one address."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from consumer.errors import ConfigError, ViewError
from consumer.settings import ViewSettings
from consumer.view import View, ViewAwayError
from consumer.view_rebuild import Rebuild
from consumer.view_verify import Verify
from mmcat.cli.servers import LocalValkey
from tests.support.broker import TopicNames, send
from tests.support.proxy import Certificate, Proxy, make_certificate
from tests.support.view_bench import SETTLE_S, Quiet, batch, ends_of, running, settings_for, shown, winners
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "running.md"


def documented_rule(password: str, prefix: str) -> list[str]:
    """What the page for operators tells them to allow."""
    found = re.search(r"ACL SETUSER mmcat (on .*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1].replace(">PASSWORD", f">{password}").replace("~mmcat:", f"~{prefix}:").split()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalValkey]:
    with LocalValkey(logs=tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.execute_command("ACL", "SETUSER", "writer", *documented_rule("hidden", "v"))
        yield valkey


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path / "tls", "IP:127.0.0.1")


def view(url: str, **given: object) -> View:
    return View.from_settings(ViewSettings.model_validate({"url": url, "prefix": "v", **given}))


def test_the_view_is_written_over_tls_by_a_user_with_a_password_that_may_do_only_this(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, certificate: Certificate, group_id: str
) -> None:
    kafka = apache_kafka
    send(kafka, topics.output, batch(0, 200))
    with redis.Redis.from_url(server.url) as client, Proxy(server.port, certificate) as proxy:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")  # nobody gets in without
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        access: dict[str, Any] = {"username": "writer", "password": "hidden", "ca_file": certificate.ca}
        settings = settings_for(kafka, topics.output, url, group_id, "v", **access)
        with running(settings) as (writer, _):
            assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
        assert shown(f"redis://:another@127.0.0.1:{server.port}/0") == winners(batch(0, 200))
        assert not Verify(settings, Quiet(), limit=1, wait_s=SETTLE_S).run().counts
        rebuilt = Rebuild(settings, Quiet(), grace_s=0, remove_per_s=1e6).run()
        assert rebuilt.removed == len(winners(batch(0, 200))) + 1  # and the positions


def test_a_certificate_that_nobody_vouches_for_or_of_another_name_is_refused(
    server: LocalValkey, certificate: Certificate, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path / "other", "DNS:elsewhere")
    with Proxy(server.port, certificate) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        with pytest.raises(ViewAwayError, match="certificate verify failed"):
            view(url).connect()
        with pytest.raises(ViewAwayError, match="certificate verify failed"):
            view(url, ca_file=other.ca).connect()
        good = view(url, ca_file=certificate.ca)
        good.connect()
        good.close()
    with Proxy(server.port, other) as proxy, pytest.raises(ViewAwayError, match=r"IP address mismatch|not valid for"):
        view(f"rediss://127.0.0.1:{proxy.port}/0", ca_file=other.ca).connect()


def test_a_wrong_password_is_said_and_not_told(server: LocalValkey) -> None:
    for given in ({"username": "writer", "password": "guessed"}, {"username": "nobody", "password": "guessed"}):
        with pytest.raises(ViewError, match="refuses our user or password") as refused:
            view(server.url, **given).connect()
        assert "guessed" not in str(refused.value)
    settings = ViewSettings.model_validate({"url": server.url, "username": "writer", "password": "hidden"})
    assert "hidden" not in repr(settings)
    in_url = view(f"redis://writer:hidden@127.0.0.1:{server.port}/0")
    in_url.connect()
    in_url.close()


def test_a_user_that_may_too_little_is_named_as_that(server: LocalValkey) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">hidden", "~v:*", "-@all", "+hget")
    with pytest.raises(ViewError, match="refuses our user or password"):
        view(server.url, username="reader", password="hidden").connect()


def test_a_ca_file_without_tls_or_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not rediss://"):
        view("redis://127.0.0.1:1/0", ca_file=tmp_path)
    with pytest.raises(ConfigError, match="is not a file"):
        view("rediss://127.0.0.1:1/0", ca_file=tmp_path)


def test_a_failover_to_a_replica_that_lacks_the_last_writes_loses_nothing(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str, tmp_path: Path
) -> None:
    with (
        LocalValkey(logs=tmp_path / "replica") as replica,
        redis.Redis.from_url(replica.url) as client,
        Proxy(server.port) as proxy,
        running(settings_for(kafka, topics.output, f"redis://127.0.0.1:{proxy.port}/0", group_id)) as (writer, metrics),
    ):
        client.replicaof("127.0.0.1", str(server.port))
        send(kafka, topics.output, batch(0, 200))
        assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
        eventually(lambda: shown(replica.url) == winners(batch(0, 200)), "the replica has it", SETTLE_S)
        client.replicaof("NO", "ONE")  # from here on it gets nothing
        send(kafka, topics.output, batch(200, 200))
        assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
        assert shown(replica.url) == winners(batch(0, 200)) != winners(batch(0, 400))
        server.kill()
        proxy.lead_to(replica.port)
        eventually(lambda: shown(replica.url) == winners(batch(0, 400)), "the replica catches up", SETTLE_S)
        eventually(lambda: writer.reason is None, "all is well", SETTLE_S)
        assert metrics.registry.get_sample_value("mmcat_view_up") == 1
