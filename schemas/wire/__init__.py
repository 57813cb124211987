"""Bytes to message and back, one record at a time. No broker, no registry client, no policy."""
