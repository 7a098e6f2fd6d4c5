"""Readers: each gives a `training.data.Dataset`.

In the order of the data:
    bad_rows.py  what is wrong with a row, and how many wrong ones are too many
    tables.py    listings.tsv, .csv or .parquet, line by line
    photos.py    where a listing's photo is: an archive, a folder, an address
    fetch.py     photos from addresses, once, into the cache
    folder.py    real listings from a folder (docs/data-format.md)
    kakao.py     Kakao Arena's HDF5 chunks
    shop.py      the simulated shop
    read.py      whichever of the first two a path holds
"""
