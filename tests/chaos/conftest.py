"""The site of the short set: the session's Apache Kafka and Valkey, shared with all other tests."""

import pytest

from tests.chaos.site import Site


@pytest.fixture
def site(apache_kafka: str, valkey_url: str) -> Site:
    """One broker and somebody else's Valkey: rows that take servers away are run by `make chaos`."""
    return Site(apache_kafka, valkey_url)
