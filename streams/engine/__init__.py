"""The burn engine: a pure function of the log."""
