"""Commands that need the whole engine: `attimo check` and `attimo explain`."""
