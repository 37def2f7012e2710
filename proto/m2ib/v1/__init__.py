"""Version 1 of the wire contract; everything but this file is generated from the .proto files beside it."""
