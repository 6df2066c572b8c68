"""Redis: publisher, subscriptions, embedded server."""
