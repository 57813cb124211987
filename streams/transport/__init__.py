"""Chunks of records in and out of Kafka or the embedded log, exactly joined."""
