"""Fetches photos from addresses that strangers wrote. In the order of a fetch:

ranges.py     which IP addresses are special (pure)
addresses.py  which addresses may be fetched (pure policy)
egress.py     headers of named hosts, and the egress proxy (pure)
hosts.py      resolution, slots and circuit breaker of each host
flights.py    equal fetches in flight are one
bodies.py     how many bytes of large photos there may be at once
validators.py  what lets a host say that a photo has not changed (pure)
client.py     `PhotoFetcher`: redirects, limits, and what became of the photo

Before it: preparing.py, with an event's `image_url` and a deadline. After it: photo decoding.
"""

from consumer.fetch.bodies import LargeBodies
from consumer.fetch.client import Fetched, PhotoFetcher
from consumer.fetch.validators import Validators

__all__ = ["Fetched", "LargeBodies", "PhotoFetcher", "Validators"]
