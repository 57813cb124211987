"""The embedded broker: a durable log on SQLite and a Faust transport over it, in one process. It is no server."""
