"""Redis, the event log and releases: light, for the hit path.

Standard library, msgpack, redis-py and boto3 alone; no numpy.
"""
