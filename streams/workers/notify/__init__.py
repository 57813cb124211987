"""Notifications: the actions of one class of destinations, each brought once. Limits have no part in it."""
