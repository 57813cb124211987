"""What a partition remembers: arrays of rings, fingerprints and sessions, and the rows they are kept in."""
