"""What detectors remember of a team, each bounded: greatest amounts, conversations, token vectors."""
