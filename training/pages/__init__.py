"""Figures as people look at them: one HTML file without network, plots as SVG.

The map, in the order of the data:
    charts.py      series of numbers → SVG
    thumbnails.py  a listing's photo → a small data URI
    evaluation.py  an Evaluation → evaluation.html (template evaluation.html.j2)

After evaluate_bundle.py and compare/. Needs the extra `train` (jinja2).
"""
