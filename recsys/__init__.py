"""Library of Shortlist: store, models, data, training, evaluation, monitoring."""
