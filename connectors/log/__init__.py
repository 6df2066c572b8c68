"""The event log: interface, SQLite, Kafka."""
