"""What the service asks the broker before anything starts: are its topics there, does it do what was asked for.

Before service.py's loop. `mmcat topics check` (topics.py) says more; here it is only what would make a start useless.
"""

from typing import Final

import structlog

from consumer.errors import ConfigError
from consumer.kafka import (
    FORBIDDEN,
    AdminClient,
    KafkaError,
    KafkaException,
    TopicPartition,
    make_consumer,
    make_transactional_producer,
    require_topics,
    transactional_id,
)
from consumer.retries import Delays
from consumer.settings import Settings

log = structlog.get_logger("mmcat.broker_checks")

ANSWER_S: Final = 5.0  # for one question to a broker that may be away
SETTLE_S: Final = 30.0  # for a predecessor's open transaction to be ended
ABORTED, COMMITTED = 1, 2
NOT_OURS_TO_ASK: Final = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED})


def check_topics(admin: AdminClient, settings: Settings) -> None:
    """Ask the broker for every topic the service needs.

    Raises:
        ConfigError: one is missing, or not for us.
        KafkaException: no answer.
    """
    topics = settings.topics
    wanted = (topics.input, topics.output, topics.review, topics.dead_letter, *Delays.of(settings).topics)
    require_topics(admin, settings.kafka, wanted, ANSWER_S)


def check_transactions(settings: Settings) -> None:
    """Abort an offset, commit another, for a group that exists for this alone, and see which the broker has.

    The embedded broker of the demo takes all calls, shows what was aborted, and after that drops what is committed.

    Raises:
        ConfigError: the broker cannot do what exactly once needs, or does not let us.
        KafkaException: no answer.
    """
    nobody = settings.kafka.model_copy(update={"instance_id": None})
    reader = make_consumer(nobody, group_id=f"{settings.kafka.group_id}-probe")
    try:
        producer = make_transactional_producer(settings.kafka)
        producer.init_transactions(SETTLE_S)
        for offset, end in ((ABORTED, producer.abort_transaction), (COMMITTED, producer.commit_transaction)):
            asked = TopicPartition(settings.topics.input, 0, offset)
            producer.begin_transaction()
            producer.send_offsets_to_transaction([asked], reader.consumer_group_metadata(), ANSWER_S)
            end(ANSWER_S)
        [found] = reader.committed([TopicPartition(settings.topics.input, 0)], timeout=ANSWER_S)
    except KafkaException as caught:
        error: KafkaError = caught.args[0]
        if error.code() in FORBIDDEN:
            raise ConfigError(
                f"the broker does not let us use transactional.id {transactional_id(settings.kafka)}: {error.str()}"
            ) from None
        if error.code() not in NOT_OURS_TO_ASK:
            raise
        log.warning("transactions_not_probed", detail=error.str())
        return
    finally:
        reader.close()
    if found.error is None and found.offset != COMMITTED:
        raise ConfigError(
            f"delivery exactly_once: the broker at {settings.kafka.bootstrap_servers} does not keep what a transaction "
            "commits (the demo's embedded broker does not): use Apache Kafka, or delivery at_least_once"
        )
