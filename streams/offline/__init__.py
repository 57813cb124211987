"""The engine without a broker: replay of files."""
