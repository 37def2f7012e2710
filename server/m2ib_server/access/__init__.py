"""Who calls, what they may do, and the encryption of the wire.

Import the modules: reading the command line must load neither gRPC, whose own log is set up first, nor models' code.
"""
