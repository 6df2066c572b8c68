"""The condition language: predicates, compiler, event counters, index."""
