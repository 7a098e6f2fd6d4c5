"""Training: listings with their truth in, bundles and a report out.

The map, in the order of the data:
    errors.py     what is refused on purpose
    progress.py   how long work tells of itself
    data.py       Row and Dataset: what readers give
    readers/      real listings from a folder, listings of the simulated shop
    shop/         the simulated shop itself: catalogue, titles, photos, stream
    splits.py     one frozen split per data set, by group
    recipe.py     a run's settings, checked; recipes/*.yaml
    encoders.py   step 1 and 2 from random weights
    frozen.py     encoders that come trained, from a folder or a hub
    steps.py      steps 1 and 2 of either kind
    features.py   what frozen encoders make of every listing, once, on disk
    fusion.py     step 3: fusion and heads on features
    calibrate.py  temperatures and thresholds
    figures/      what each figure means, as pure functions of arrays
    evaluate.py   all figures of a model on held rows
    label_noise.py  what the data tells of its own wrong labels
    export.py     a model with all that travels with it, as a bundle
    baselines.py  plain models on the same split
    report.py     report.json
    train.py      the whole run: `train`, `train_shop`, `train_folder`
    evaluate_bundle.py  every figure of one bundle on one part of its data
    late_fusion.py  calibrated probabilities of both modalities joined, as a peer
    compare/      several models over several seeds, with intervals
    suspected.py  labels that look wrong, by held-out plain models
    pages/        HTML and plots

Imports mmcat only; the consumer and training never meet.
"""
