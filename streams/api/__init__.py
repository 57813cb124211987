"""HTTP: ingest, check, burn, health."""
