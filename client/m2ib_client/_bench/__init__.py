"""The load generator of `m2ib bench`."""
