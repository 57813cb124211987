"""Systems of tickets: one file each, over their REST API."""
