"""What people say of findings: written into the log that owns them, and read back as a record."""
