"""The command `m2ib`: what the client can do, from a terminal."""
