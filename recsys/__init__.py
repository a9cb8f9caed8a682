"""Shortlist's library: data, models, evaluation and the records that cross process borders."""
