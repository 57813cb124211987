"""Wire contracts: one file a message. No I/O, and nothing here knows Kafka, Redis or HTTP."""
