"""Measures how long the playbooks take, what failures cost, and how fast the clients are (`make bench`)."""
