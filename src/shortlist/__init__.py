"""A serverless batch-plus-lookup recommender.

The folders of the repository are linked into this one package, so that an installation adds one
top-level name.
"""
