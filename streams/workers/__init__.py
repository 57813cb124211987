"""Faust agents that feed the engine and keep its rows."""
