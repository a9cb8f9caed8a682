"""From tables on disk or S3 to validated arrays, and the data sets to try things with."""

from shortlist.recsys.data.loading import Loaded, load

__all__ = ["Loaded", "load"]
