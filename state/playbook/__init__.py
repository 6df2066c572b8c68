"""The compiled playbook."""
