"""What each figure means, as pure functions of arrays: no model, no files but the contest's, no torch.

The map, in the order of the data:
    answers.py      scores of held rows → what is answered, row by row: small enough to keep for millions of rows
    accuracy.py     accuracy per level and of whole paths, macro-F1, hierarchical F1, four independent answers
    contest.py      the Kakao score, its two readings, answers that expect the most of it, its CSV
    confidence.py   calibration error and its floor, coverage at a precision, risk and coverage
    bootstrap.py    intervals over groups; the smallest difference that the data can show
    confusions.py   which paths are taken for which, and where answers leave the true path
    suspects.py     labels that held-out predictions contradict

`training.evaluate` gathers them.
"""
