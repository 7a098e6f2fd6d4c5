"""Who is in a consumer group: asked by a process of its own, which librdkafka may take down with it.

    python -m consumer.group_look GROUP SECONDS < properties.json

A request to a group's coordinator whose broker goes away meanwhile ends the whole process that made it (librdkafka
2.16: `Assertion eonce->refcnt > 0`), and that is just when assignment.py has to ask.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from consumer.kafka import AdminClient, KafkaException

START_S: Final = 10.0  # for a process to start on a machine that is busy


class Member(NamedTuple):
    """One of a group; the instance id is None where it has none."""

    instance_id: str | None
    member_id: str


def look(properties: Mapping[str, Any], group_id: str, timeout_s: float) -> list[Member] | None:
    """The members of a group; None where the broker does not say. Blocks.

    Args:
        properties: of an admin client. They go through a pipe: there are passwords among them.
        timeout_s: for the broker's answer.
    """
    command = [sys.executable, "-m", "consumer.group_look", group_id, str(timeout_s)]
    told = json.dumps(dict(properties))
    try:
        done = subprocess.run(  # noqa: S603 (our own command)
            command, input=told, capture_output=True, text=True, timeout=2 * timeout_s + START_S, check=True
        )
    except subprocess.SubprocessError:
        return None
    return [Member(*one) for one in json.loads(done.stdout)]


def _main() -> int:
    group_id, timeout_s = sys.argv[1], float(sys.argv[2])
    admin = AdminClient({**json.load(sys.stdin), "log_level": 0})
    try:
        asked = admin.describe_consumer_groups([group_id], request_timeout=timeout_s)
        members = asked[group_id].result(2 * timeout_s).members
    except (KafkaException, TimeoutError):
        return 1
    print(json.dumps([(one.group_instance_id, one.member_id) for one in members]))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
