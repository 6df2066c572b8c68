"""The stored person: model, codec, addresses, deduplication."""
