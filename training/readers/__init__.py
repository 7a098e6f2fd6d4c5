"""Readers: each gives a `training.data.Dataset`.

folder.py  real listings from a folder (docs/data-format.md)
shop.py    the simulated shop
"""
