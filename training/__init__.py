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
    views.py      seeded augmentations of photos
    photo_encoder.py  photos through a frozen encoder, by the quickest that is there
    features.py   what frozen encoders make of every listing, once, on disk

The engine, which all three steps share:
    hardware.py      device, processes, bf16
    order.py         which rows a step sees        losses.py        four levels, and the tail
    optimisation.py  optimiser, learning rate      weights.py       modes, copies, moving average
    checkpoint.py    where a step stands, on disk  journal.py       progress line, JSON lines, trackers
    task.py          what a step of training is    engine.py        the loop

The three steps:
    encoders.py   steps 1 and 2: a text or an image encoder learns whole
    frozen.py     encoders that come trained, from a folder or a hub
    earlier.py    encoders of earlier steps, from their bundles
    morphemes.py  MeCab-ko, for a BPE of one's own
    steps.py      steps 1 and 2 of any kind
    fusion.py     step 3: fusion and heads on features
    stem.py       what frozen blocks make of photos, once
    tune.py       step 3 with the encoders' last blocks
    fusion_step.py  step 3 of any kind

What comes of it:
    calibrate.py  temperatures and thresholds
    figures/      what each figure means, as pure functions of arrays
    evaluate.py   all figures of a model on held rows
    label_noise.py  what the data tells of its own wrong labels
    export.py     a model with all that travels with it, as a bundle
    baselines.py  plain models on the same split
    report.py     report.json
    run.py        what the steps of one run share
    train.py      the whole run: `train`, `train_shop`, `train_folder`
    research.py   `python -m training.train`: the command line of the research code
    evaluate_bundle.py  every figure of one bundle on one part of its data
    late_fusion.py  calibrated probabilities of both modalities joined, as a peer
    compare/      several models over several seeds, with intervals
    suspected.py  labels that look wrong, by held-out plain models
    pages/        HTML and plots

Imports mmcat only; the consumer and training never meet.
"""
