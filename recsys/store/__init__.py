"""Redis, event log and releases, light for the hit path.

The package imports the standard library, msgpack, redis-py and boto3 alone, and no numpy.
"""
