"""Commands about what people are told, and the record of it."""
