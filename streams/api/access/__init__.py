"""Who may ask the API for what: tokens, roles, and the gate before every operation."""
