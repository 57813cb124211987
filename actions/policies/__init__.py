"""Findings and budget state in, actions out. Pure."""
