"""One file, one verb: a pure step over one person and one event."""
