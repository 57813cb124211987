"""What follows from amounts: buckets closed, tiers crossed, facts; findings and actions."""
