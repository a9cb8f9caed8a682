"""Trains towers, neighbours and ranker.

The results are arrays and LightGBM text: nothing that serves imports this package.
"""
