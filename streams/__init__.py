"""The service: engine, budgets, transport, workers, API, CLI."""
