"""Detectors of things that should not be: new models, runaway sessions, sleepers that wake, failures, free tokens."""
