"""The Open Inference Protocol; everything but this file is generated from the .proto files beside it.

For servers: the wire package `inference` is tritonclient's too, and one process can hold only one of the two.
"""
