"""The tree, its calendars and its tiers. Pure."""
