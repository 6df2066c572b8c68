"""The playbook folder and its status file."""
