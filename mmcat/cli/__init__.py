"""The root of the program: `mmcat COMMAND`. The only place that joins `mmcat`, `consumer` and `training`, lazily.

What a command line passes through, in order:

- `root`: the command table, help, version, exit codes; loads one command's module and nothing else
- `__main__`: the same for `python -m mmcat.cli`
- `texts`: what several commands share: printing JSON, sizes of options, one clear sentence for an error

Trying it: `demo` (the story), `demo_bundle` (trained once, kept), `demo_servers` (broker, cache, photo host, consumer),
`demo_stream` (events in, results out), `demo_table` (the live table), `demo_summary` (the figures at the end),
`predict` (one listing or a table of them), `simulate` (a shop that registers listings), `servers` (embedded servers).

Running it: `consume` (the service, and the cache writer alone), `topics`, `replay`, `config`. Making models: `train`.
"""

from mmcat.cli.root import main

__all__ = ["main"]
