"""What people ask for and decide: over HTTP with tokens, and by buttons in Slack."""
