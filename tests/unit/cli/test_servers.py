"""Local servers: real ones, started, asked, taken away and brought back; nothing stays behind."""

import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import redis

from mmcat.cli.processes import LocalServer, ServerError, ServerMissing, free_port, spawn, stop_process
from mmcat.cli.servers import LocalKafka, LocalTansu, LocalValkey, kafka_libs, why_no_kafka
from tests.support.broker import create_topics, read_topic, send
from tests.support.waiting import eventually


def _listens_on(pid: int) -> set[str]:
    return {one.laddr.ip for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN}


def test_valkey_answers_and_keeps_port_over_a_restart() -> None:
    with LocalValkey() as cache, redis.Redis.from_url(cache.url) as client:
        port, data = cache.port, cache.data
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
        assert cache.pid is not None
        assert _listens_on(cache.pid) == {"127.0.0.1"}
        cache.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        cache.start()
        assert client.ping()
        assert cache.port == port
    assert not data.exists()


def test_tansu_takes_and_gives_records_on_loopback_only() -> None:
    with LocalTansu() as broker:
        assert broker.pid is not None
        assert _listens_on(broker.pid) == {"127.0.0.1"}
        create_topics(broker.bootstrap, ["t"], 1)
        send(broker.bootstrap, "t", [(b"k", b"v", {"h": b"1"}), (b"k", None, {})])
        assert [(one.key, one.value) for one in read_topic(broker.bootstrap, "t")] == [(b"k", b"v"), (b"k", None)]


@pytest.mark.integration
def test_kafka_keeps_its_records_over_a_restart(tmp_path: Path) -> None:
    if (reason := why_no_kafka()) is not None:
        pytest.skip(reason)
    with LocalKafka(logs=tmp_path, settings={"message.max.bytes": "2000000"}) as broker:
        assert broker.pid is not None
        assert {ip.removeprefix("::ffff:") for ip in _listens_on(broker.pid)} == {"127.0.0.1"}
        create_topics(broker.bootstrap, ["t"], 1)
        send(broker.bootstrap, "t", [(b"k", b"v" * 1_500_000, {})])
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert [len(one.value or b"") for one in read_topic(broker.bootstrap, "t")] == [1_500_000]
    assert (tmp_path / "kafka.log").exists()


def test_missing_jars_are_named_with_their_remedy(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match=r"`make kafka`|no `java`"):
        LocalKafka(libs=tmp_path).__enter__()


def test_folder_of_jars_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MMCAT_KAFKA_LIBS", raising=False)
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    assert kafka_libs() == tmp_path / "kafka" / "libs"
    monkeypatch.setenv("MMCAT_KAFKA_LIBS", "/elsewhere")
    assert kafka_libs() == Path("/elsewhere")


def test_failed_start_shows_the_log_and_leaves_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cache = LocalValkey(port=taken.getsockname()[1])
        with pytest.raises(ServerError, match=r"(?s)valkey on port \d+ .*bind"):
            cache.__enter__()
    assert cache.pid is None


def test_a_port_that_was_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("mmcat.cli.processes.free_port", lambda: next(ports))
        with LocalValkey() as cache, redis.Redis.from_url(cache.url) as client:
            assert client.ping()


class _Mute(LocalServer):
    """Says one line and never listens."""

    name = "mute"

    def _command(self) -> list[str]:
        return [sys.executable, "-c", "import time; print('here I am', flush=True); time.sleep(60)"]

    def _ask(self) -> None:
        raise AssertionError("nothing listens, so nothing can be asked")


def test_a_server_without_answer_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)no answer within 1 s.*here I am"):
        _Mute(logs=tmp_path, ready_timeout_s=1).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_servers_die_with_a_parent_that_is_killed() -> None:
    program = textwrap.dedent("""
        import sys
        from mmcat.cli.servers import LocalTansu, LocalValkey
        with LocalTansu() as broker, LocalValkey() as cache:
            print(broker.pid, cache.pid, flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        eventually(lambda: not any(_alive(pid) for pid in pids), "servers end with their parent")


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_ctrl_c_in_the_parent_stops_the_servers_cleanly() -> None:
    program = textwrap.dedent("""
        import sys
        from mmcat.cli.servers import LocalValkey
        with LocalValkey() as cache:
            print(cache.pid, cache.data, flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        pid, data = parent.stdout.readline().decode().split()
        parent.send_signal(signal.SIGINT)
        parent.wait()
    assert not _alive(int(pid))
    assert not Path(data).exists()


def test_a_process_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    log = tmp_path / "deaf.log"
    process = spawn([sys.executable, "-c", deaf], log)
    eventually(lambda: "deaf" in log.read_text(), "the process runs")
    assert stop_process(process, timeout_s=0.2) == -signal.SIGKILL
    assert not _alive(process.pid)
