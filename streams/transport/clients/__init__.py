"""Clients beside Faust: deployments' brokers, topics read whole, the schema registry."""
