"""What all scripts of the bot's git in a sandbox begin with (workspace_scripts.py, hook_scripts.py).

They get their values as arguments, never spliced into their text: $1 the clone that a person's sessions
share, $2 the session's worktree, $3 its branch, then each script's own.
"""

from __future__ import annotations

# The clone's configuration is the agent's: what it names to be run by the bot's git commands is not.
# (Filters are: without them git can't tell what has changed. They get nothing that the session's agent has
# not.)
GIT = (
    "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c commit.gpgSign=false -c gc.auto=0"
    " -c submodule.recurse=false"
)

# The home's configuration counts for all of a person's sessions, so the bot's commands don't read it.
SURROUNDINGS = {
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}

HERE = f"""
set -e
bare=$1 tree=$2 branch=$3 heads=refs/heads/$3
away=refs/sandpiper/away/$3 stranded=refs/sandpiper/stranded/$3
shift 3
# What the session's code is fetched from, if all of it is not here, is in a file of git's own form; the agent
# may have changed that, and then misses it. Only there does git go. What it shows there is in no argument,
# since all users of a machine can read those. A pipe in the file's place would keep git waiting.
fetches() {{
  test -f "$tree.origin" || {{ rm -rf -- "$tree.origin"; return; }}
  from=$({GIT} config --file "$tree.origin" remote.origin.url) || return 0
  GIT_CONFIG_KEY_0=remote.origin.url GIT_CONFIG_VALUE_0=$from
  GIT_CONFIG_KEY_1=http.$from.extraHeader GIT_CONFIG_VALUE_1=
  GIT_CONFIG_KEY_2=$GIT_CONFIG_KEY_1
  GIT_CONFIG_VALUE_2=$({GIT} config --file "$tree.origin" "$GIT_CONFIG_KEY_1") || return 0
  GIT_CONFIG_COUNT=3 GIT_ALLOW_PROTOCOL=http:https
  export GIT_CONFIG_COUNT GIT_ALLOW_PROTOCOL GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 GIT_CONFIG_KEY_1 \\
    GIT_CONFIG_VALUE_1 GIT_CONFIG_KEY_2 GIT_CONFIG_VALUE_2
}}
from=
fetches
g() {{ {GIT} "$@"; }}
b() {{ g --git-dir="$bare" "$@"; }}
t() {{ g -C "$tree" "$@"; }}

# Two sessions of one person share the clone: only one at a time changes its refs and worktrees.
# The lock is in the box, so it holds whichever replica prepares there.
alone() {{ mkdir -p "$bare"; exec 9>"$bare/sandpiper.lock"; flock 9; }}

# $1 ref, $2 commit: a ref that only the bot writes, so that a lock on it is what a killed git left
put() {{ rm -f "$bare/$1.lock"; b update-ref --no-deref "$1" "$2"; }}

# Is the worktree there, and is it one of the clone's?
ours() (
  cd "$tree" 2>/dev/null && test -f .git || exit 1
  common=$(g rev-parse --git-common-dir 2>/dev/null) && cd "$common" && common=$(pwd -P)
  cd "$bare" && test "$common" = "$(pwd -P)"
)

# What the clone has of this worktree, whatever the worktree says of that. There is no `git worktree prune` of
# ours: of other sessions' worktrees nothing is seen from here, so git takes them all for deleted.
entries() {{
  there=$(cd "$(dirname "$tree")" && pwd -P)/${{tree##*/}}/.git
  for each in "$bare"/worktrees/*/gitdir; do
    if test "$(cat "$each" 2>/dev/null)" = "$there"; then echo "${{each%/gitdir}}"; fi
  done
}}

# The locks that only the session's own agent can have held. Call it when that has ended.
unlock() {{
  rm -f "$bare/$heads.lock"
  if ours; then
    own=$(t rev-parse --absolute-git-dir)
    rm -f "$own/index.lock" "$own/HEAD.lock" "$own/config.worktree.lock"
  fi
}}

has_branch() {{ b rev-parse -q --verify "$heads" >/dev/null; }}

# $1 the turn's start ref. The agent may have renamed or deleted the branch.
restore() {{ has_branch || put "$heads" "$(b rev-parse --verify "$1")"; }}

# A git operation that is in progress in the worktree; nothing when there is none
operation() {{
  own=$(t rev-parse --absolute-git-dir)
  for each in rebase-merge:rebase rebase-apply:rebase MERGE_HEAD:merge CHERRY_PICK_HEAD:cherry-pick \\
    REVERT_HEAD:revert BISECT_LOG:bisect; do
    if test -e "$own/${{each%%:*}}"; then echo "${{each##*:}}"; return; fi
  done
}}

# Is HEAD, wherever it is, the branch with the agent's own new commits on it?
ahead() {{
  head=$(t rev-parse -q --verify HEAD) || return 1
  test "$head" = "$(b rev-parse "$heads")" && return
  b merge-base --is-ancestor "$heads" "$head" || return 1
  test -z "$(b for-each-ref --count=1 --contains "$head" refs/remotes/origin)"
}}

# Where HEAD is, if that is neither the branch nor ahead of it
elsewhere() {{
  on=$(t symbolic-ref -q HEAD || true)
  if test "$on" = "$heads" || ahead; then return; fi
  if test -n "$on"; then echo "${{on#refs/heads/}}"; else t rev-parse --short=12 HEAD; fi
}}

# Where the index has a repository and files lie now, as its `.git` was deleted: git looks at none of them. A
# submodule that was not filled has none, or such as git ignores. Prints the paths, each with a NUL.
became_files() (
  cd "$tree" && links=$(mktemp) copy=$(mktemp -u) index=$(g rev-parse --git-path index)
  g ls-files -s -z | sed -z -n 's/^160000 [^\t]*\t//p' | xargs -0 -r sh -c '
    for each; do
      if test -d "$each" && ! test -L "$each" && ! test -f "$each/.git" && ! test -e "$each/.git/HEAD" &&
        test -n "$(find "./$each" -mindepth 1 -print -quit)"; then printf "%s\\0" "$each"; fi
    done' there >"$links"
  if test -s "$links"; then
    cp -p -- "$index" "$copy" || true
    GIT_INDEX_FILE=$copy; export GIT_INDEX_FILE
    g update-index -z --force-remove --stdin <"$links"
    xargs -0 sh -c '
      for each; do
        {GIT} --literal-pathspecs ls-files -o -z --exclude-standard -- "$each" |
          grep -z -q "[^/]$" && printf "%s\\0" "$each"
      done' files <"$links" || true
  fi
  rm -f "$links" "$copy"
)

# Repositories inside of the worktree: git would take in their commit's name, and none of their files. Of a
# submodule, another commit is a change here.
status() {{
  t --no-optional-locks status --porcelain=v1 -z --untracked-files=all --no-renames --ignore-submodules=dirty
  became_files | sed -z 's/^/?? /'
}}
nested() {{ status | tr '\\0' '\\n' | sed -n 's,^?? \\(.*\\)/$,\\1,p'; }}

# Submodules with work that is only in them: changes, or commits that they have from nowhere. What others'
# commits say of one is theirs, though no branch of its has it (a shallow one, say).
submodules() {{
  t ls-files -s -z | tr '\\0' '\n' | sed -n 's/^160000 [^\t]*\t//p' | sort -u | while IFS= read -r each; do
    test -e "$tree/$each/.git" || continue
    theirs=$(b rev-parse --exclude="origin/$branch" --remotes=origin | sort -u)
    theirs=$(t merge-base HEAD $theirs 2>/dev/null) &&
      theirs=$(t rev-parse -q --verify "$theirs:$each") || theirs=
    own=$(
      cd "$tree/$each"
      g --no-optional-locks status --porcelain 2>&1 | head -n 1
      stash=$(g rev-parse -q --verify refs/stash || true)
      g rev-list -n 1 --ignore-missing --branches HEAD $stash --not --remotes --tags $theirs 2>&1
    ) || true
    test -z "$own" || echo "$each"
  done
}}

# Prints something if there is a repository below the worktree, whether git sees it or not; if that cannot be
# known; or if submodules have theirs in what the clone has of the worktree.
inner() {{
  find "$tree/" -mindepth 2 -name .git '(' ! -type d -o -exec test -e '{{}}/HEAD' ';' ')' \\
    -print -quit 2>&1 || true
  entries | while IFS= read -r each; do
    test ! -e "$each/modules" || find "$each/modules" -mindepth 1 -print -quit
  done
}}

add() {{
  became_files | t update-index -z --force-remove --stdin || return
  set -- .
  while IFS= read -r each; do
    test -z "$each" || set -- "$@" ":(exclude,literal)$each"
  done <<END
$(nested)
END
  # As if all were checked out: git refuses to take in what lies outside of a sparse checkout.
  t -c core.sparseCheckout=false add -A -- "$@"
}}

# Have git look again at the files that it was told not to look at, where they are there.
unhide() {{
  for each in no-assume-unchanged no-skip-worktree; do
    t ls-files -v -z | sed -z -n 's/^[a-zS] //p' | (
      cd "$tree"
      xargs -0 -r sh -c 'for each; do if test -e "$each"; then printf "%s\\0" "$each"; fi; done' there
    ) | t update-index -z --$each --stdin || return
  done
}}

# $1 a commit, for where there is no index that can be read; prints the tree of all that lies in the worktree.
# It begins with the worktree's own index: what is staged though git ignores it is known only there. The copy
# has its time, by which git knows what may have changed unseen.
everything() (
  own=$(t rev-parse --absolute-git-dir)
  GIT_INDEX_FILE=$(mktemp -u); export GIT_INDEX_FILE
  if ! {{
    test -f "$own/index" && cp -p -- "$own/index" "$GIT_INDEX_FILE" && unhide && add && t write-tree
  }} 2>/dev/null; then
    rm -f "$GIT_INDEX_FILE"
    t read-tree "$1"
    add
    t write-tree
  fi
  rm -f "$GIT_INDEX_FILE"
)

# $1 a commit of `keep`, of what is no part of the branch: under a name by which it is found with that
strand() {{ put "$stranded/$1" "$1"; }}

# Is there anything on these refs that no pushed commit has, neither as it is nor as files?
only_here() {{
  b for-each-ref --format='%(objectname) %(tree)' "$@" | while read -r commit files; do
    test -n "$(b rev-list -n 1 "$commit" --not --remotes=origin)" || continue
    b log --format=%T --no-show-signature --remotes=origin | grep -qx "$files" || echo "$commit"
  done
}}

# $1 message: a commit of everything
whole() {{
  head=$(t rev-parse -q --verify HEAD || b rev-parse "$heads")
  all=$(everything "$head")
  commit=$head
  if test "$all" != "$(b rev-parse "$head^{{tree}}")"; then
    commit=$(b commit-tree "$all" -p "$head" -m "$1")
  fi
  echo "$commit"
}}

# $1 ref, $2 message: a commit of everything, on a ref, with the worktree left as it is
keep() {{
  commit=$(whole "$2")
  put "$1" "$commit"
  echo "$commit"
}}

# $1 message. Where the making or the removal of a worktree was broken off, it has no mark (`.opened`), and
# all that lies in it is committed or put away already. Where that is not so, an agent deleted the mark: what
# lies there is put away for the session's next turn. The making ends with an index.
unmarked() {{
  commit=$(whole "$1") before=$(b rev-parse -q --verify "$away" || true)
  if test -z "$(b diff-tree -r --no-renames --name-only --diff-filter=d "${{before:-$heads}}" "$commit")" &&
    b merge-base --is-ancestor "$(t rev-parse HEAD)" "$heads"; then return; fi
  if test ! -f "$(t rev-parse --absolute-git-dir)/index"; then strand "$commit"; return; fi
  test -z "$before" || strand "$before"
  put "$away" "$commit"
}}

# Is there anything in the worktree but what makes it one?
filled() {{
  test -e "$tree" &&
    test -n "$(find "$tree/" -mindepth 1 -maxdepth 1 ! '(' -name .git -type f ')' -print -quit 2>&1)"
}}

# $1: what an agent may have made read-only, as Go does with its modules
delete() {{
  rm -rf -- "$1" 2>/dev/null && return
  chmod -R u+rwX -- "$1" 2>/dev/null || true
  rm -rf -- "$1"
}}
"""
