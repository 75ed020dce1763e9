"""Programs of ours in a box, as they are called there."""

from __future__ import annotations

# What lies in the home (a `python3` on its PATH, a module that Python loads at its start) must not stand
# between the bot and an agent: the interpreter is the system's, and takes nothing from the home.
# $SANDPIPER_PROGRAMS is the directory of our programs, in every box.
_CALL = """\
python=$(PATH=/usr/local/bin:/usr/bin:/bin; command -v python3) || python=$(command -v python3) || exit 127
exec "$python" -I -S "$SANDPIPER_PROGRAMS/{}.py" "$@"
"""


def program(name: str) -> tuple[str, ...]:
    """The beginning of a command line that runs `name`; its arguments follow."""
    return ("/bin/sh", "-c", _CALL.format(name), name)
