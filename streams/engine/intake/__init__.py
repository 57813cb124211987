"""From records to columns: events, corrections, the service's own records, and what is no good."""
