"""The simulated shop: listings for the demo, the tests and load, where neither photo nor title is enough.

The map, in the order of the data:
    draws.py        random draws by counter, opaque tokens: listing i needs no state
    catalogue.py    what is sold: things, uses, the four-level tree that they span
    titles.py       Korean, English and mixed titles of a length drawn before the category
    silhouettes.py  outlines of the things, all of the same area
    photos.py       photo specifications and their rendering at any size
    shop.py         ShopConfig, Shop, ShopListing: listing i as a function of the configuration and i
    bad_events.py   one of every class of event that must end as a dead letter
    stream.py       registrations, updates, deletions, late photos and bad events as bytes; knows nothing of Kafka
    photo_host.py   the photos over HTTP, with the faults of real hosts
    leaks.py        what boosted trees make of everything but content
    check.py        prints what the shop promises: shares, leaks, accuracy by kind

Read by training.readers.shop; imports mmcat only.
"""
