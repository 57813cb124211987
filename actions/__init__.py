"""What follows from a finding: policies decide, delivery brings, effects do, the gateway obeys."""
