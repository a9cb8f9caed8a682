"""Everything that learns; what it makes are arrays and LightGBM text, which need none of this to be used."""
