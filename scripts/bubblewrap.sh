#!/bin/sh
# See to it that bubblewrap is here: it isolates the local sandboxes.
# "needed": fail without it. "wanted": go on without it; the tests that need it are skipped and say so.
set -eu

command -v bwrap >/dev/null && exit 0

as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && { [ -z "$as_root" ] || sudo -n true 2>/dev/null; }; then
    echo "Installing bubblewrap with apt: it isolates the local sandboxes"
    if $as_root apt-get update -qq >/dev/null 2>&1 &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap >/dev/null 2>&1; then
        exit 0
    fi
    echo "apt could not install it." >&2
fi

if command -v dnf >/dev/null; then
    command="sudo dnf install -y bubblewrap"
else
    command="sudo apt-get update && sudo apt-get install -y bubblewrap"
fi
if [ "$1" = needed ]; then
    echo "bubblewrap isolates the local sandboxes, and it is missing here. Run this, then make again:" >&2
    echo "    $command" >&2
    exit 1
fi
echo "bubblewrap is missing, so the tests of local sandboxes are skipped. To run them too: $command"
