#!/bin/sh
# Make a virtual environment at $1 with the first Python that is new enough ($PYTHON is tried first).
set -eu

found=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$candidate
        break
    fi
done
if [ -z "$found" ]; then
    echo "Sandpiper needs Python 3.11 or newer, and none is on the PATH." >&2
    echo "Debian 12, Ubuntu 24.04 and newer have it: sudo apt-get install -y python3 python3-venv" >&2
    exit 1
fi

version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
echo "Making $1 with Python $version"
if ! said=$("$found" -m venv "$1" 2>&1); then
    rm -rf "$1"  # half made, it would be taken for a whole one
    if "$found" -c 'import ensurepip' 2>/dev/null; then
        echo "$said" >&2
    else
        echo "This Python comes without its venv module. Run this, then make again:" >&2
        echo "    sudo apt-get update && sudo apt-get install -y python$version-venv" >&2
    fi
    exit 1
fi
