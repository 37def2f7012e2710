"""Runs the command `m2ib` (`python -m m2ib_client`)."""

import os

from m2ib_client._cli.app import app


def main() -> None:
    """Run the command and exit with its code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines are no part of the command's output
    app(prog_name="m2ib")


if __name__ == "__main__":
    main()
