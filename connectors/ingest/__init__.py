"""`attimo ingest`: JSON lines and point-of-sale receipts."""
