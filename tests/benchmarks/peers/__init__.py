"""The same job on other stream libraries, each as its documentation advises, against the service.

work             what the peers' programs share: the job's arguments, photos over HTTP, the model, a result as JSON
arroyo_job       sentry-arroyo: threads fetch while the model works
bytewax_job      bytewax: fetches begin at the source, `collect` makes batches
faststream_job   faststream: a batch subscriber, fetches in one event loop
quixstreams_job  quixstreams: a sink that writes at each checkpoint
packages         each peer's packages, in a folder of their own
bundle           a model of the shape that training makes for CPUs, random weights
race             topics, processes and turns
__main__         the command
"""
