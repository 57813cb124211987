"""Commands that look at a deployment or change what it is told."""
