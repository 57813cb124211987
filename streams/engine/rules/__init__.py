"""What is in force when: policy versions, owners, calendars, and whose an event is."""

from spendbrake.streams.engine.rules.book import RuleBook, Rules

__all__ = ["RuleBook", "Rules"]
