"""One series under watch: from readings to features, from raw scores to tail probabilities, and their fusion."""
