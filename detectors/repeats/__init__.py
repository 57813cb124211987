"""Detectors of work done twice: calls that repeat others, in loops, in replays, past the cache."""
