"""Tells an address that only this machine reaches from one that others reach too."""

import ipaddress

UNIX = "unix:"


def is_loopback(listen: str) -> bool:
    """Tell whether "host:port" or "unix:path" is reached from this machine alone; a name but localhost is not."""
    if listen.startswith(UNIX):
        return True
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
