"""What gateways without a client of their own ask over HTTP: decisions and leases."""
