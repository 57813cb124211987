"""What people say: requests, decisions, opinions of findings; written into the log that owns them, and read back."""
