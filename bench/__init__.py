"""Measures how long the playbooks take on the hosts of a lab, and what they start there (`make bench`)."""
