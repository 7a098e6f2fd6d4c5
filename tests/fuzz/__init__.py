"""Photos broken at random, 20,000 of them, through the decoder: `make fuzz`.

In the order of a run:

    originals  small whole photos of every kind, and some real ones
    mutants    one of them broken, by its seed alone
    decoding   a process of its own that decodes, with its memory capped; and the handle on it
    run        the whole run: a line of progress, a table, what failed kept as files

`test_photos` runs 2,000 and shows that the run sees what it is for: a crash, a leak, a bomb, a hang.
"""
