"""The root of the program: `mmcat COMMAND`. The only place that joins `mmcat`, `consumer` and `training`, lazily.

What a command line passes through:
    root             the command table, help, version, exit codes; loads one command's module and nothing else
    texts, options   what commands share: error sentences, JSON, settings from the command line
    progress         bars on stderr            interrupts   SIGTERM as calm as Ctrl-C

Trying it:
    demo             the story, from its parts: demo_data (what is sent), bundles (trained once, kept), demo_servers
                     (broker, cache, photo host, consumer), demo_probe (what the broker lacks), demo_stream (events in,
                     results out), demo_table (the live table), demo_summary (the figures)
    predict          one listing or a table of them (predict_input reads it)
    simulate         a shop that registers listings
    processes, servers   children that never outlive us; the brokers and the cache that come in wheels and jars

Running it: consume, cache_writer, cache (rebuild, verify), topics, replay (replay_words reads a range, replay_changes
shows a diff), dead_letter (dead_letter_text makes strangers' text safe to print), resume and top (both ask a running
service by service_port), config, categorize (tables in bulk).
Measuring it: bench, with its parts in benchmarks.
Making models: data (checks them), train, compare, evaluate (both say through test_looks when they see the test part),
bundle (calibrate: its encoders in int8).
"""

from mmcat.cli.root import main

__all__ = ["main"]
