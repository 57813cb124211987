"""One file an effect: the only code that talks to Redis, Slack or a webhook's receiver."""
