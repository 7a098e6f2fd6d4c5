"""What `mmcat bench` measures, on this machine, with parts that it starts itself.

    intervals      medians of pairs and their 95 % intervals
    transport      events a second and CPU per event, watched from outside
    null_service   the service on a model that answers at once, the child of the others
"""
