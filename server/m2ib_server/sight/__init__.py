"""Sight into what the server does. Imports nothing by itself: checking an audit log needs neither gRPC nor torch."""
