"""Training/serving skew of features, from histograms."""
