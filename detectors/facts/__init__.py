"""Detectors that read single facts (a new model, a session's cost): one a file."""
