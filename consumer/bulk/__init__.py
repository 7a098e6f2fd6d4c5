"""A table of listings in, a table of answers out, on one machine or a cluster. In the order of the data:

job.py       what is asked for, in parts
rows.py      a row of the table as the event that it would have been (pure)
prepare.py   photos fetched and decoded: what a CPU does for a part
answers.py   the model's answers to a part, as Parquet
cluster.py   the two stages on Ray Data
folder.py    which parts are done, and their file in the end
publish.py   the answers into the output topic, guarded by rank

Importing this package loads neither Ray nor pyarrow.
"""
