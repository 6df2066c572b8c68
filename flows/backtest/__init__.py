"""`attimo rehearse`: backtests a playbook on recorded events."""
