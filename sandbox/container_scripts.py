"""What the container with a sandbox's whole volume is asked to do there, in POSIX sh. It has the files of all
sessions before it, and no agent's program beside it.
"""

from __future__ import annotations

from sandbox.container import ROOT

# Directories below /sandbox, which the engine binds: it would follow a link. What lies at /sandbox no agent
# can write to. Those in the home it covers, and agents can have made anything in their place, so they are
# looked at part by part: this runs where the files of all sessions are.
#
# Before the first of a volume: releases before rooms had all in the home. Once only, and for a fresh volume
# before any agent ran, since what an agent puts there later is not to be taken for that.
PREPARE = f"""
cd {ROOT} || exit
plain() {{ test -d "$1" && ! test -L "$1"; }}
way() {{
    here=home
    IFS=/
    for part in ${{1#home/}}; do here=$here/$part; plain "$here" || break; done
    unset IFS
    plain "$here"
}}
if ! test -e rooms/.settled; then
    for kind in workspace repositories; do
        plain home/$kind || continue
        for one in home/$kind/*; do
            plain "$one" && ! test -e "$kind/${{one##*/}}" && mv -- "$one" $kind/
        done
        rmdir home/$kind 2>/dev/null || mv -T home/$kind "$(mktemp -u home/$kind.before-XXXXXX)"
        ln -s ../$kind home/$kind
    done
    for one; do
        case $one in home/*) way "$one" && test -n "$(ls -A "$one")" || continue ;; *) continue ;; esac
        mkdir -p sessions/.earlier && mv -- "$one" "$(mktemp -d sessions/.earlier/XXXXXX)/"
    done
    : >rooms/.settled || exit
fi
for one; do
    case $one in home/*)
        here=home
        IFS=/
        for part in ${{one#home/}}; do
            test -r "$here" && test -w "$here" && test -x "$here" || chmod u+rwx -- "$here"
            here=$here/$part
            plain "$here" && continue
            # Another bot may be just here, and makes it at any moment.
            {{ test -e "$here" || test -L "$here"; }} && ! plain "$here" &&
                mv -T -- "$here" "$(mktemp -u "$here.aside-XXXXXX")"
            mkdir -m 700 -- "$here" || plain "$here" || exit
        done
        unset IFS
        continue
    esac
    test -d "$one" || mkdir -p -- "$one" || exit
    ! test -L "$one" || exit
done
touch -- "$1"
"""
FORGET = f"find {ROOT}/rooms -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {{}} +"

# $1 a directory, $2 minutes, then rooms' directories there: prints those of rooms in which nothing runs, nor
# did so many minutes ago.
IDLE = """
cd -- "$1" || exit
minutes=$2
shift 2
for room; do
    runs=
    for one in "$room"/processes/*/stdout; do
        test ! -e "$one" || test -e "${one%/*}/exit" || runs=1
    done
    test "$minutes" = 0 || test -z "$(find "$room" -maxdepth 3 -mmin "-$minutes" | head -n 1)" || runs=1
    test "$runs" || echo "$room"
done
"""

# In a room: ends it, if a look ($2 and on, a command) says that it is idle. $1 its supervisor's directory.
# Programs start under the same lock (`supervisor.py keep`): what has started is seen by the look, and what
# starts later ends with the room before it has begun.
END = """
import fcntl, os, signal, subprocess, sys, time
lock = os.open(sys.argv[1] + "/processes", os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
if subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, check=True).stdout:
    os.kill(-1, signal.SIGKILL)  # all but the first process, which ends with the one that it waits for
    time.sleep(30)
"""
