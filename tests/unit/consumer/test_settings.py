"""Settings: where they come from, what is refused, and in which words."""

from pathlib import Path

import pytest

from consumer.errors import ConfigError
from consumer.kafka import make_consumer, make_producer
from consumer.loading import load, shown
from consumer.settings import FIXED_PROPERTIES, KafkaSettings, Settings


def test_defaults_are_the_local_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, origins = load(environment={})
    assert settings == Settings()
    assert origins == {}


def test_environment_wins_over_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    file = tmp_path / "mmcat.toml"
    file.write_text(
        'shutdown_s = 5\n[kafka]\ngroup_id = "file"\n"socket.keepalive.enable" = true\n[batch]\nmax_age_ms = 7\n'
    )
    environment = {"MMCAT_KAFKA__GROUP_ID": "environment", "MMCAT_BATCH__MAX_LISTINGS": "9", "MMCAT_HOME": "/x"}
    settings, origins = load(file, environment=environment, overrides={"batch.max_listings": 3, "view.url": None})
    assert settings.kafka.group_id == "environment"
    assert settings.kafka.properties() == {"socket.keepalive.enable": "true"}
    assert (settings.batch.max_listings, settings.batch.max_age_ms, settings.shutdown_s) == (3, 7, 5)
    assert origins["kafka.group_id"] == "environment MMCAT_KAFKA__GROUP_ID"
    assert origins["batch.max_age_ms"] == f"file {file}"
    assert origins["batch.max_listings"] == "command line"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MMCAT_BATCH__MAX_LISTING": "3"}, "did you mean batch.max_listings"),
        ({"MMCAT_NONSENSE": "3"}, "there is no setting nonsense"),
        ({"MMCAT_BATCH__MAX_AGE_MS": "soon"}, "batch.max_age_ms (environment MMCAT_BATCH__MAX_AGE_MS)"),
        ({"MMCAT_SHUTDOWN_S": "400"}, "max.poll.interval.ms"),
        ({"MMCAT_KAFKA__ACKS": "1"}, "acks is fixed"),
        ({"MMCAT_TOPICS__REVIEW": "products.registered"}, "four different topics"),
        ({"MMCAT_ORDER_BY": "size"}, "order_by"),
        (
            {"MMCAT_KAFKA__GROUP_PROTOCOL": "consumer", "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "6000"},
            "session.timeout.ms is the broker's to set with group_protocol consumer",
        ),
        ({"MMCAT_CONFIG": "/nowhere/mmcat.toml"}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment=environment)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FIXED_PROPERTIES))
def test_what_the_promises_rest_on_cannot_be_set(name: str) -> None:
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        load(environment={"MMCAT_KAFKA__" + name.upper().replace(".", "_"): "1"})


def test_a_property_that_the_client_does_not_know_is_a_wrong_setting() -> None:
    wrong = KafkaSettings.model_validate({"no.such.property": "1"})
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        make_producer(wrong)
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        make_consumer(wrong, group_id="g")


def test_secrets_are_not_shown() -> None:
    environment = {
        "MMCAT_KAFKA__SASL_PASSWORD": "hunter2",
        "MMCAT_KAFKA__SSL_KEY_PEM": "hunter2",
        "MMCAT_VIEW__URL": "rediss://user:hunter2@cache:6379/0",
    }
    settings, _ = load(environment=environment)
    assert "hunter2" not in repr(settings.view)
    assert "hunter2" not in str(shown(settings))
    assert settings.kafka.properties()["sasl.password"] == "hunter2"


def test_a_secret_may_stand_in_a_file_and_other_files_are_left_to_the_client(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", encoding="utf-8")
    environment = {
        "MMCAT_KAFKA__SASL_PASSWORD_FILE": str(secret),
        "MMCAT_KAFKA__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE": "/a/key",
    }
    settings, _ = load(environment=environment)
    assert settings.kafka.properties() == {
        "sasl.password": "hunter2",
        "sasl.oauthbearer.assertion.private.key.file": "/a/key",
    }
    assert shown(settings)["kafka.sasl_password_file"] == str(secret)
    assert "hunter2" not in repr(settings)
    secret.unlink()
    with pytest.raises(ConfigError, match=r"sasl\.password\.file: .*password cannot be read"):
        load(environment=environment)


def test_no_secret_is_in_what_python_shows_of_the_settings() -> None:
    environment = {"MMCAT_KAFKA__SASL_PASSWORD": "hunter2", "MMCAT_HTTP__TOKEN": "hunter2"}
    settings, _ = load(environment=environment)
    assert "hunter2" not in repr(settings) + str(settings)


def test_lists_are_given_by_commas_or_as_json() -> None:
    settings, _ = load(
        environment={"MMCAT_PHOTO__ALLOW": '["a.example", "10.0.0.0/8"]', "MMCAT_PHOTO__PORTS": "80,8088"}
    )
    assert settings.photo.allow == ("a.example", "10.0.0.0/8")
    assert settings.photo.ports == (80, 8088)
