"""Detectors that read closed buckets of spend: one a file."""
