"""What the bot's git does inside a sandbox, as shell scripts.

What is published is read from the clone: the agent may have moved, broken or deleted its worktree.
"""

from __future__ import annotations

from bot.workspace_here import GIT, HERE

# $1 the clone; prints git's version, then what is here of the forge's: commits, or "partial" where of some
# the contents of files are not
HAVE = f"""
git version
cd "$1" 2>/dev/null || exit 0
if test -e sandpiper.partial; then echo partial; exit; fi
{GIT} for-each-ref --format='%(objectname)' refs/remotes/origin | sort -u |
  {GIT} cat-file --batch-check | sed -n 's/ commit .*//p'
"""

# bundle ("" = nothing new), name, email, "whole" when the bundle has all that there is; stdin: a URL to fetch
# from instead and a token for it, or an empty line; then "update <ref> <sha>" lines. Sessions have tokens of
# their own: each is in a file beside its worktree, which the configuration of that worktree includes (OPEN).
FETCH = f"""{HERE}
alone
if ! test -e "$bare/sandpiper.made"; then  # or not to its end
  rm -f "$bare/HEAD.lock" "$bare/config.lock"
  g init -q --bare "$bare"
  : >"$bare/sandpiper.made"
fi
# Left by a git that was killed. Under refs/remotes/origin nobody else writes; the others an agent of
# another session may hold, but not for seconds.
find "$bare/refs/remotes/origin" -name '*.lock' -exec rm -f {{}} + 2>/dev/null || true
for lock in "$bare/packed-refs.lock" "$bare/config.lock"; do
  for try in 1 2; do test ! -e "$lock" || sleep 1; done
  rm -f "$lock"
done
cd "$bare"
g config gc.auto 0
g config user.name "$2"
g config user.email "$3"
IFS=' ' read -r url token
if test -n "$1"; then
  g bundle unbundle "$1" >/dev/null
  rm -f "$1"
fi
wanted=$(mktemp)
cat >"$wanted"
rm -rf -- "$tree.origin"
if test -n "$url"; then
  mkdir -p "$(dirname "$tree")"
  (umask 077; cat >"$tree.origin") <<END
[remote "origin"]
  url = $url
[http "$url"]
  extraHeader = Authorization: Bearer $token
END
  : >"$bare/sandpiper.partial"
  if test "$(g config extensions.worktreeConfig || true)" != true; then
    g config --file "$bare/config.worktree" core.bare true
    g config --unset-all core.bare || true
    g config extensions.worktreeConfig true
  fi
  g config remote.origin.promisor true
  g config remote.origin.partialCloneFilter blob:none
  g config extensions.partialClone origin
  fetches
  cut -d' ' -f3 "$wanted" | sort -u |
    g fetch -q --filter=blob:none --no-tags --no-write-fetch-head --no-auto-gc --no-recurse-submodules \\
      --stdin origin
elif test -n "$4"; then
  rm -f "$bare/sandpiper.partial"
fi
cut -d' ' -f2 "$wanted" | sort >"$wanted.refs"
# What is gone goes first: it may stand where a directory of new names has to be.
g for-each-ref --format='%(refname)' refs/remotes/origin | sort | comm -23 - "$wanted.refs" |
  sed 's/^/delete /' | g update-ref --no-deref --stdin
g update-ref --no-deref --stdin <"$wanted"
rm -f "$wanted" "$wanted.refs"
"""

# base, the turn's start ref, the turn's number, the published commit or "", message; prints base_sha (or
# "-"), then a line for each thing to tell. A checkout that was broken off leaves no `.opened` beside it, and
# is made anew. Agents can delete that mark, too.
OPEN = f"""{HERE}
alone
base=refs/remotes/origin/$1 start=$2 turn=$3 published=$4
unlock
said=
tell() {{ said="$said$1
"; }}
delete "$tree.removed"
if ! test -e "$tree.opened" || ! ours; then
  aside=
  if ! ours; then
    ! filled || aside=yes
  elif test -n "$(inner)" || ! t rev-parse -q --verify 'HEAD^{{commit}}' >/dev/null || ! has_branch; then
    if filled; then aside=yes; rm -f "$tree/.git"; fi
  else
    unmarked "$5"
  fi
  if test -n "$aside"; then
    to=$tree.turn-$turn
    while test -e "$to"; do to=$to+; done
    mv "$tree" "$to"
    tell "moved $to"
  fi
  rm -f "$tree.opened" "$tree.setup" "$tree.start"
  delete "$tree"
  mkdir -p "$(dirname "$tree")"
  # Forced twice, in the place of an entry that the clone may still have of it. Submodules have their
  # repositories in that.
  entries | while IFS= read -r each; do
    test -e "$each/modules" || continue
    to=$tree.modules-$turn
    while test -e "$to"; do to=$to+; done
    mv -- "$each/modules" "$to"
  done
  if has_branch; then
    b worktree add -q -f -f --lock "$tree" "$branch"
  elif b rev-parse -q --verify "refs/remotes/origin/$branch" >/dev/null; then
    b worktree add -q -f -f --lock --no-track -b "$branch" "$tree" "refs/remotes/origin/$branch"
  else
    b worktree add -q -f -f --lock --no-track -b "$branch" "$tree" "$base"
  fi
  # What was not committed when it was put away. Where the branch was moved since, it is kept under a name
  # that no later putting away takes.
  kept=$(b rev-parse -q --verify "$away" || true) back=
  if test -n "$kept" && test "$(b rev-parse "$kept^")" = "$(b rev-parse "$heads")"; then
    t read-tree -u --reset "$kept"
    t reset -q
    # What was staged though git ignores it would be seen by nobody now.
    b diff-tree -r -z --no-renames --name-only --diff-filter=A "$heads" "$kept" |
      {{ t check-ignore -z --stdin || true; }} |
      xargs -0 -r {GIT} -C "$tree" --literal-pathspecs add -f --
    back=yes
  fi
  if test -n "$kept" && test -z "$back" && ! b diff --quiet "$kept" "$heads"; then  # else published since
    strand "$kept"
    tell "away $stranded/$kept"
  fi
  : >"$tree.opened"
  test -z "$kept" || b update-ref -d "$away"
fi
# Worktrees that an agent made where each program has files of its own are gone with that, and hold their
# branches. One whose program runs yet looks the same from here, so they have a day.
root=$(cd "$(dirname "$tree")/.." && pwd -P)
for each in "$bare"/worktrees/*/gitdir; do
  entry=${{each%/gitdir}}
  at=$(cat "$each" 2>/dev/null) || continue
  case $at in "$root"/*) continue ;; /tmp/* | /var/tmp/*) ;; *) continue ;; esac
  if test -e "$at" || test -e "$entry/locked" || test -e "$entry/modules"; then continue; fi
  if ! grep -q '^ref: refs/heads/' "$entry/HEAD"; then continue; fi
  test -n "$(find "$entry" -mmin -1440 -print -quit)" || rm -rf -- "$entry"
done
own=$(t rev-parse --absolute-git-dir)
test -z "$from" || g config --file "$own/config.worktree" include.path "$tree.origin"
has_branch || b update-ref "$heads" "$(t rev-parse HEAD)"
b merge-base "$heads" "$base" || echo -
printf %s "$said"
test -z "$from" || echo demand
going=$(operation)
if test -n "$going"; then
  echo "operation $going"
elif test "$(t symbolic-ref -q HEAD || true)" != "$heads"; then
  where=$(elsewhere)
  if test -z "$where"; then
    b update-ref "$heads" "$(t rev-parse HEAD)"
    t symbolic-ref HEAD "$heads"
  else
    t checkout -q --ignore-other-worktrees "$branch" -- 2>/dev/null || echo "elsewhere $where"
  fi
fi
# What we published ourselves and the agent has rewritten since is no news of others.
theirs=$(b rev-parse -q --verify "refs/remotes/origin/$branch" || true)
if test -n "$theirs" && test "$theirs" != "$published" &&
  ! b merge-base --is-ancestor "$theirs" "$heads"; then
  if test "$(t symbolic-ref -q HEAD)" = "$heads" && b merge-base --is-ancestor "$heads" "$theirs" &&
    t merge -q --ff-only "$theirs" >/dev/null 2>&1; then
    echo forwarded
  else
    echo diverged
  fi
fi
test ! -e "$tree/.gitmodules" || echo submodules
! t grep -q 'filter=lfs' HEAD -- .gitattributes '*/.gitattributes' || echo lfs
has=
for each in .sandpiper/setup.sh .devcontainer/devcontainer.json .devcontainer.json; do
  test ! -e "$tree/$each" || has=$each
done
test -n "$has" || has=$(b ls-tree -r --name-only "$base" .sandpiper/start.sh \\
  .devcontainer/devcontainer.json .devcontainer.json)
test -z "$has" || echo hooks
b rev-parse -q --verify "$start" >/dev/null || put "$start" "$(b rev-parse "$heads")"
"""

# the turn's start ref
CHANGED = f"""{HERE}
test "$(b rev-parse "$heads")" = "$(b rev-parse -q --verify "$1")" || echo changed
"""

# the turn's start ref; prints "gone", or the operation in progress, where HEAD is if it is elsewhere (an
# empty line each when not), and what is not committed, as git's status does
UNFINISHED = f"""{HERE}
restore "$1"
ours || {{ echo gone; exit; }}
going=$(operation)
echo "$going"
if test -n "$going"; then echo; else where=$(elsewhere); echo "$where"; fi
status
submodules | sed 's,.*,?? &/,' | tr '\\n' '\\0'
"""

# the turn's start ref, a ref to keep on, message: put the worktree onto the branch, with nothing in
# progress. What that leaves behind is kept. Prints what is not committed then, as git's status does.
SETTLE = f"""{HERE}
restore "$1"
unlock
ours || exit 0
going=$(operation)
if test -z "$going" && test -z "$(elsewhere)"; then
  b update-ref "$heads" "$(t rev-parse HEAD)"
  t symbolic-ref HEAD "$heads"
  status
  exit 0
fi
strand "$(keep "$2" "$3")"
for each in rebase am cherry-pick revert merge; do t $each --quit >/dev/null 2>&1 || true; done
for each in rebase-merge rebase-apply MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do rm -rf "$own/$each"; done
rm -f "$own"/BISECT_*
t symbolic-ref HEAD "$heads"
t reset -q --hard
t clean -fdq
status
"""

# message
COMMIT_ALL = f"""{HERE}
unlock
add
t diff-index --cached --quiet HEAD && exit 0
t commit -q --no-verify -m "$1"
"""

# the turn's start ref, a ref to keep on, message; prints the commit to publish: without what is in the
# worktree, if that is no part of the branch
KEEP = f"""{HERE}
restore "$1"
unlock
if ! ours; then
  b rev-parse "$heads"
  exit
fi
commit=$(keep "$2" "$3")
going=$(operation)
where=$(elsewhere)
if test -n "$going$where"; then
  strand "$commit"
  commit=$(b rev-parse "$heads")
fi
echo "$commit"
"""

# base, commit ("" = the branch's); prints head, base_sha or "-" (no common history), theirs or "-",
# "behind" when theirs holds head, else "-", then subjects
WORK = f"""{HERE}
head=$(b rev-parse --verify "${{2:-$heads}}^{{commit}}")
base=$(b merge-base "$head" "refs/remotes/origin/$1" || echo -)
theirs=$(b rev-parse -q --verify "refs/remotes/origin/$branch" || echo -)
behind=-
if test "$theirs" != - && b merge-base --is-ancestor "$head" "$theirs"; then behind=behind; fi
printf '%s\\n' "$head" "$base" "$theirs" "$behind"
test "$base" = - || b log --format=%s --no-show-signature "$base..$head"
"""

# message; prints why the worktree stays, if it does. It is moved first, so that none is half removed.
PUT_AWAY = f"""{HERE}
test -e "$bare/sandpiper.made" || exit 0
alone
delete "$tree.removed"
if ! ours; then
  if test -e "$tree.opened" || filled; then echo "it is none of the repository's"; else rm -rf "$tree"; fi
  exit 0
fi
unlock
going=$(operation)
if test -n "$going"; then echo "a $going is in progress"; exit 0; fi
if test "$(t symbolic-ref -q HEAD || true)" != "$heads"; then echo "it is not on its branch"; exit 0; fi
if test -n "$(inner)"; then echo "there are repositories in it"; exit 0; fi
if test -e "$tree.opened"; then
  keep "$away" "$1" >/dev/null
  test "$(b rev-parse "$away")" != "$(b rev-parse "$heads")" || b update-ref -d "$away"
else
  unmarked "$1"
fi
entries=$(entries)
rm -f "$tree.opened"
mv "$tree" "$tree.removed"
delete "$tree.removed"
rm -rf "$tree".setup* "$tree".start* "$tree.origin"
echo "$entries" | while IFS= read -r each; do test -z "$each" || rm -rf -- "$each"; done
"""

# a directory; what is still there of the worktree, and what lies beside it, goes where only sessions of the
# same repository see it
HIDE = f"""{HERE}
for each in "$tree" "$tree".*; do
  if test -e "$each" || test -L "$each"; then
    mkdir -p "$bare/aside/$1"
    rm -rf -- "$bare/aside/$1/${{each##*/}}"
    mv -- "$each" "$bare/aside/$1/"
  fi
done
"""

# the published commit or ""; prints a line for each kind of work that is only here
UNPUBLISHED = f"""{HERE}
test -e "$bare/sandpiper.made" || exit 0
published=$1 tips=
b cat-file -e "$published^{{commit}}" 2>/dev/null || published=
if has_branch; then tips=$heads; fi
test -z "$(only_here "$away" "$stranded/")" || echo changes
if ours; then
  going=$(operation)
  test -z "$going" || echo operation
  test -z "$(status | tr '\\0' '\\n')$(submodules)" || echo changes
  tips="$tips $(t rev-parse -q --verify HEAD || true)"
fi
test -n "$(echo $tips)" || exit 0
test -z "$(b rev-list -n 1 $tips --not --remotes=origin $published)" || echo commits
"""

# stdin: "<branch> <the published commit or nothing>" of each session of the clone; prints a commit that is
# only here, of a branch of an agent's own, a tag or the stash
BESIDE = f"""{HERE}
test -e "$bare/sandpiper.made" || exit 0
stash=$(b rev-parse -q --verify refs/stash || true)
while IFS=' ' read -r its published; do
  for each in "refs/heads/$its" $published; do
    commit=$(b rev-parse -q --verify "$each^{{commit}}" || true)
    test -z "$commit" || echo "^$commit"
  done
done | b rev-list -n 1 --stdin --branches --tags $stash --not --remotes=origin
"""

# commit: move the branch onto a kept commit without touching a file
ADOPT = f"""{HERE}
unlock
if has_branch; then
  if b merge-base --is-ancestor "$1" "$heads" || ! b merge-base --is-ancestor "$heads" "$1"; then exit 0; fi
fi
if ours && test "$(t symbolic-ref -q HEAD)" = "$heads" && has_branch; then
  t reset -q --mixed "$1"
else
  b update-ref "$heads" "$1"
fi
"""

# target, head, then commits the forge has; prints the bundle's bytes. Of a clone that has not got everything
# only what was made here: git would fetch what that is a change of, and what others made.
BUNDLE = f"""{HERE}
target=$1 head=$2
shift 2
mkdir -p "$(dirname "$target")"
rm -rf -- "$target" "$target.lock"
put "refs/sandpiper/outgoing/$branch" "$head"
if test "$(b config remote.origin.promisor || true)" = true; then
  {{
    echo '# v2 git bundle'
    for each in "$@"; do echo "-${{each#^}} "; done
    printf '%s refs/sandpiper/outgoing/%s\\n\\n' "$head" "$branch"
    printf '%s\\n' "$head" "$@" |
      b pack-objects -q --revs --stdout --delta-base-offset --exclude-promisor-objects
  }} >"$target"
else
  b bundle create -q "$target" "refs/sandpiper/outgoing/$branch" "$@"
fi
wc -c <"$target"
"""

# $1 the worktree, $2 a path in it: where links lead to, below the worktree. The agent may move them about
# while we look; whoever may ask for a file here may also ask the agent for one.
FILE = """
cd -P -- "$1" 2>/dev/null || { echo away; exit; }
real=$(readlink -f -- "$2") && test -e "$real" || { echo none; exit; }
case $real in
  "$PWD") echo directory; exit ;;
  "$PWD"/*) ;;
  *) echo outside; exit ;;
esac
if test -f "$real"; then echo file; wc -c <"$real"; printf %s "${real#"$PWD"/}"
elif test -d "$real"; then echo directory
else echo special; fi
"""
