"""Cluster-aware AMQP clients, the record of what they saw, and the suite that breaks a deployment under them."""
