"""What is granted beyond the policy file: rollover, top-ups, and who may approve them. Pure."""
