"""Where people are asked: an agent apart from what earlier turns left in the home.

Some commands are not asked about, since they only read. But a shell sources `~/.bashrc`, git runs what
`~/.gitconfig` names, and a program in `~/.local/bin` stands before the one it is called like: one command
that people allowed once would open every later turn. So HOME is an empty directory of this process, and the
search path has nothing of the real home's. Of that are left the agent's conversations, and what package
managers keep to install from, which only commands that are asked about look into.

The clone's own configuration cannot be kept from git; GIT has what git would run by it when it looks at a
worktree, as far as the names of its settings are known beforehand. They are not for filters and drivers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STORES = (".cache", ".cargo", ".gradle", ".m2", ".npm", ".rustup", "go")

# $1 the conversations and $2 the stores, from the home; then the program. Not below /tmp where that can be,
# since there Codex makes no helpers.
APART = """
keep=$1 stores=$2 real=$HOME
shift 2
own=$(
    PATH=/usr/local/bin:/usr/bin:/bin
    for left in /dev/shm/agent-*.??????; do
        pid=${left#/dev/shm/agent-}
        test -e "/proc/${pid%.*}" || ! test -O "$left" || test -L "$left" || rm -rf "$left"
    done
    own=$(mktemp -d -p /dev/shm "agent-$$.XXXXXX" 2>/dev/null || mktemp -d) && mkdir -p "$real/$keep" || exit
    for one in "$keep" $stores; do
        test -e "$real/$one" || continue
        mkdir -p "$(dirname "$own/$one")" && ln -s "$real/$one" "$own/$one" || exit
    done
    echo "$own"
) || exit
found=
set -f
IFS=:
for one in $PATH; do
    case $one in
        "$real" | "$real"/* | [!/]* | "") ;;
        *) found=$found${found:+:}$one ;;
    esac
done
unset IFS BASH_ENV ENV XDG_CONFIG_HOME
set +f
export PATH="$found" HOME="$own"
"$@"
code=$?
PATH=/usr/local/bin:/usr/bin:/bin rm -rf "$own"
exit $code
"""

_GIT = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "log.showSignature": "false",
}
GIT: Mapping[str, str] = {
    "GIT_CONFIG_COUNT": str(len(_GIT)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(_GIT)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_GIT.values())},
}


def apart(conversations: str, stores: Sequence[str] = STORES) -> tuple[str, ...]:
    """What the agent's command line is put behind. conversations: the agent's directory of them, from the
    home. stores: those of package managers."""
    return ("/bin/sh", "-c", APART, "apart", conversations, " ".join(stores))
