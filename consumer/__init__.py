"""The streaming service, in the order of the data.

settings.py      the one tree of settings
loading.py       settings from file, environment and command line, and where each value came from
kafka.py         the only file that imports the Kafka client
broker_checks.py  what is asked of the broker before anything starts
service.py       the poll loop: seek back, pause, poll, submit, commit, drain
assignment.py    the partitions held now: where they start, what is committed, how they are given up
group_look.py    who is in the group, asked by a process of its own
guard.py         holds a partition back that brings mostly dead letters (pure)
watchdog.py      finds a partition gone silent (pure)
lag_watch.py     asks where partitions end, for the watchdog
ending.py        when the service ends, and how long each step of that may take
intake.py        a Kafka message as the record that the pipeline takes
retry_intake.py  holds retries back until they are due and it is their turn
retry_share.py   how many retries may go beside live events (pure)
records.py       the nouns of the stream (pure)
pipeline.py      from a polled record to its acknowledged outcome: the only file that knows all stages
work.py          one record on its way
preparing.py     what the model needs of it: its photo, fetched and decoded, and its texts
publishing.py    what becomes of it: makes its records, has them sent, finishes it
stages.py        how busy each stage is, and which holds the stream up (pure)
budget.py        what is held at once (pure)
events.py        bytes to event, deletion or refusal (pure)
reuse.py         answers that the view holds already
feature_store.py  bytes on disk or in Redis, bounded
feature_cache.py  what the encoders have seen, kept; in nobody's way
known_photos.py  which photo an address had, and what its host called it
fetch/           photos from addresses that strangers wrote
order.py         what orders the events of a product (pure)
held_order.py    the order of a deletion that says no version: the one that is held
ordering.py      the events of one product stay in order (pure)
batching.py      READY listings to batches
worker.py        the engine thread
results.py       what goes out (pure)
last_results.py  the newest answers, for mmcat top
rank.py          newer wins (pure)
dead_letters.py  what cannot be categorized, byte for byte (pure)
retries.py       late photos: the next delay, its record, and how it is read (pure)
outcomes.py      what is handed to the broker's side, and who is told (pure)
delivery.py      hands records to the broker and waits for its word (at least once)
gapless.py       what a transaction may hold (pure; exactly once)
transactions.py  outcomes and offsets become visible together (exactly once)
transactional.py  the client calls of a transaction, and what their errors mean
offsets.py       what may be committed (pure)
commits.py       commits offsets by the consumer (at least once)
view_writer.py   keeps Redis equal to the output topic
repair.py        publishes a winner again that a stale record stands behind
cache_writer.py  the same as a process of its own
view_topic.py    which topic the view was written from, and the lag of its reader
view.py          the view itself: one atomic rule (view.lua, positions.lua)
view_keys.py     the names of its keys (pure)
view_connection.py  how Redis is reached: credentials, certificates, no second try
view_reading.py  the output topic up to a pinned end
view_rebuild.py  fills the view anew, beside the old one, and switches
view_verify.py   says where view and topic differ
view_guard.py    asks the view whether what it holds stays
letter_reader.py reads the dead-letter topic
letters.py       a dead letter as it is read back, and as it is sent again (pure)
letter_journal.py  which dead letters were sent again (pure)
letter_replay.py sends dead letters again
spans.py         ranges as offsets, and what of them remains (pure)
replay_range.py  what a replay would read
replay_plan.py   a replay as it was decided once, kept as a file
replay.py        works a plan: categorizes a range of a topic again
replay_reader.py reads its offsets to their ends
replay_sieve.py  which events need no work: what is newer is known
replay_pace.py   keeps a replay to a rate
replay_sinks.py  where outcomes go if not into the live topics
replay_diff.py   which answers would change (pure)
bulk/            a table of listings in, a table of answers out, on one machine or a cluster
topics.py        makes the topics, or says what is wrong with them
topic_plan.py    the topics as they should be (pure)
schemas.py       what others rely on, generated: JSON Schemas, the table of settings
metrics.py       every number, with unit and meaning
tally.py         a histogram that takes many values at once
health.py        /healthz, /readyz, /metrics
log.py           structlog
errors.py        every error raised on purpose, as one tree
"""
