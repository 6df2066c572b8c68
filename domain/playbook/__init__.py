"""Structs of the playbook files, their templates, and their schema."""
