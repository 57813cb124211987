"""Running effects once: ledger, retries, dead letters. Pure, over ports."""
