"""What `mmcat bench` measures, on this machine, with parts that it starts itself; and what `mmcat top` reads.

intervals      medians of repeated runs and of pairs, with their 95 % intervals
parts          decode, fetch and engine by themselves
transport      events a second and CPU per event of a whole service, seen from outside
latency        how long events at a steady rate take
null_service   the service on a model that answers at once
photo_host     photos on loopback
scrape, watch  /metrics as numbers: one look, two looks, the most of many
report         a table with bars, or JSON
"""
