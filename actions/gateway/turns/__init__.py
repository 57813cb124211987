"""Turns that several processes share: how often something may be begun, whoever begins it."""
