"""Traffic to play: a small company, adapters for real traces, the player."""
