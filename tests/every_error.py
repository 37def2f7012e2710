"""Finds every kind of error that the server can raise, and makes one of each."""

import inspect
from collections.abc import Iterator

from m2ib_server import errors

FILLING = {float: 2.0, int: 3, list[str]: ["tiny"], str: "something"}


def every_error(root: type[errors.ServiceError] = errors.ServiceError) -> Iterator[type[errors.ServiceError]]:
    """Every kind of error that our own server can raise; what a test of another file defines is none."""
    for kind in root.__subclasses__():
        if kind.__module__.startswith("m2ib_server"):
            yield kind
        yield from every_error(kind)


def example(kind: type[errors.ServiceError]) -> errors.ServiceError:
    """Make an error of a kind from what its constructor asks for."""
    arguments = {}
    positional = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            arguments[name] = FILLING[parameter.annotation]
        else:
            positional.append(FILLING[parameter.annotation])
    return kind(*positional, **arguments)
