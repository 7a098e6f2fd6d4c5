"""Training: listings with their truth in, bundles and a report out.

The map, in the order of the data:
    errors.py     what is refused on purpose
    progress.py   how long work tells of itself
    store.py      vectors on disk, mapped into memory
    rows.py       rows on disk, mapped into memory
    data.py       Dataset: what readers give
    readers/      real listings from a folder, Kakao Arena's chunks, listings of the simulated shop
    shop/         the simulated shop itself: catalogue, titles, photos, stream
    check.py      what is wrong with a data folder
    splits.py     one frozen split per data set, by group
    ledger.py     who looked at the test part, and what for
    recipe.py     a run's settings, checked; recipes/*.yaml
    encoders.py   step 1 and 2 from random weights
    frozen.py     encoders that come trained, from a folder or a hub
    steps.py      steps 1 and 2 of either kind
    views.py      seeded augmentations of photos
    features.py   what frozen encoders make of every listing, once, on disk
    fusion.py     step 3: fusion and heads on features
    calibrate.py  temperatures and thresholds
    evaluate.py   what the figures mean
    baselines.py  plain models on the same split
    report.py     report.json
    train.py      the whole run: `train`, `train_shop`, `train_folder`

Imports mmcat only; the consumer and training never meet.
"""
