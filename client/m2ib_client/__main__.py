"""Runs the command `m2ib` (`python -m m2ib_client`)."""

from m2ib_client._cli.app import app


def main() -> None:
    """Run the command and exit with its code."""
    app(prog_name="m2ib")


if __name__ == "__main__":
    main()
