"""The program `sandpiper`, and `python -m bot`."""

import gc
import sys


def main() -> int:
    # Fifteen hundred modules are read in, and all of them stay: looking for garbage among them meanwhile,
    # and with each full collection later, finds none.
    gc.disable()
    from bot.cli import main as command

    gc.freeze()
    gc.enable()
    return command()


if __name__ == "__main__":
    sys.exit(main())
