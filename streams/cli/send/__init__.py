"""`spendbrake send`: usage events from files onto a deployment's topics, or to its API."""
