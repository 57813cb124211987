"""Allocations: what is granted beyond the policy file and by whom, and which would break in a surge. Pure."""
