"""The fault matrix: the real service on real servers, struck at marked points, judged by an oracle. `make chaos`.

In the order of a trial:

    site      the servers that trials share: Apache Kafka (one broker or three), Valkey
    cluster   three brokers
    trial     one trial: topics, photo host, load, services, replay; what is read back at the end
    photos    which of its photos come late, and which never
    watch     snapshots of commits and of what the processes hold, all along
    entry     how a service under trial is started: `python -m tests.chaos.entry consume`
    points    where it can be struck: wraps methods of the service, in its process only
    mutations breaks one promise each, to prove that the oracle sees it
    evidence  what the service under trial writes down of itself
    reading   what a trial asks of broker and view
    case      all that a trial leaves behind, as data
    oracle    what was promised, as pure functions over a case
    rows      the faults, one function each
    records   the file of trials
    plan      which trial comes next, by what stands in the file
    runner    runs trials one after the other on a site of its own
    lanes     several runners at once, each in a process of its own
    matrix    the command: goes on where it stopped
    table     the trials as the table of docs/reliability.md
    soak      one service at full rate with churn and faults; memory, descriptors and lag as a plot
    plot      draws it

`test_oracle` holds the oracle against made-up logs, `test_kill_points` runs each point once, `test_mutations` each
mutation, `test_lanes` shares out trials that take no time.
"""
