"""Several models, several seeds, one split: what is better than what, and how sure that is.

The map, in the order of the data:
    plan.py        which models, blocks, heads and seeds; from flags or YAML
    kept.py        held-out logits of finished runs on disk, so that a comparison goes on where it was stopped
    learners.py    trains one model on prepared features, and the plain baselines
    runs.py        everything a plan asks for, trained or found
    standings.py   figures per model over its seeds; differences with intervals; rivals chosen on `select`
    tables.py      Markdown and plots

After train.py's steps; called by `mmcat compare`.
"""
