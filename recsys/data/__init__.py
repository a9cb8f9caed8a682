"""Reads tables into validated arrays; fetches sample data sets."""

from shortlist.recsys.data.loading import Loaded, load

__all__ = ["Loaded", "load"]
