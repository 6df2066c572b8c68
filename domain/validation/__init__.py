"""`attimo check`: decoding of the playbook files, errors and warnings."""
