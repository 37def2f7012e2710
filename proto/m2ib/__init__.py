"""The wire contract of the M2IB attribution service."""
