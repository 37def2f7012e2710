"""Owns how many descriptors this process may open: each connection takes one, also one that says nothing."""

import resource


def raise_limit() -> int:
    """Raise the soft limit to the hard one and return it.

    The usual soft limit of 1,024 is for programs that use select(2); a thousand silent connections would reach it, and
    then nobody else could connect.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
