"""The test of a destination: one alert's whole life, told to its receiver alone. It writes nothing to any log."""
