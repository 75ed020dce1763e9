"""How a repository's hooks are looked at and run inside a sandbox, as shell scripts.

Their marks, logs and locks lie beside the worktree, where the agent can reach them: they are about its own
box, and spoil nobody else's.
"""

from __future__ import annotations

from bot.workspace_here import HERE

MOST_CONFIG = 256 * 1024  # bytes of a devcontainer.json
MOST_SAID = 16 * 1024  # bytes of a hook's output that are brought out
KEPT_LOG = 256  # reads of 16 KiB at most; once or twice as many are kept in the box

# base; prints six lines: of the worktree's setup.sh the digest or "-", the worktree's devcontainer.json in
# base64, the mark of the setup; of the base's start.sh the object's name or "-", the base's
# devcontainer.json in base64, the mark of the start. The base's start.sh is put beside the worktree. Its
# objects are meant, not what an agent would have them replaced by; for a link, what it leads to in the base.
LOOK = f"""{HERE}
export GIT_NO_REPLACE_OBJECTS=1
base=refs/remotes/origin/$1
blob() {{
  echo "$base:$1" | b cat-file --follow-symlinks --batch-check='%(objecttype) %(objectname)' 2>/dev/null |
    sed -n '1s/^blob //p'
}}
mark() {{ if test -f "$1"; then head -c 300 -- "$1" | head -n 1; else echo -; fi; }}
configs='.devcontainer/devcontainer.json .devcontainer.json'

if test -f "$tree/.sandpiper/setup.sh"; then sha256sum <"$tree/.sandpiper/setup.sh" | cut -d' ' -f1
else echo -; fi
for each in $configs; do
  if test -f "$tree/$each"; then head -c {MOST_CONFIG} -- "$tree/$each" | base64 -w0; break; fi
done
echo
mark "$tree.setup"

rm -rf -- "$tree.start.sh"
found=$(blob .sandpiper/start.sh)
if test -n "$found"; then
  b cat-file blob "$found" >"$tree.start.sh"
  chmod 700 "$tree.start.sh"
fi
echo "${{found:--}}"
for each in $configs; do
  found=$(blob "$each")
  if test -n "$found"; then b cat-file blob "$found" | head -c {MOST_CONFIG} | base64 -w0; break; fi
done
echo
mark "$tree.start"
"""

# the worktree, the hook's name, a stamp of what is run, who asks, seconds, the command; prints "<code>
# <seconds>" and the end of the output. Whoever asks again, as a bot that has restarted, is told what came of
# it, and waits for one that runs: `timeout` holds the lock too, should its parent be killed alone. The log
# is a ring of two files, and is read by a process of its own, so that a server which the hook leaves running
# keeps nobody waiting; dd, since that writes what it has read.
RUN = f"""
tree=$1 name=$2 stamp=$3 asker=$4 seconds=$5 command=$6
mark=$tree.$name log=$tree.$name.log pipe=$tree.$name.pipe
# A pipe in their place would keep us waiting.
for each in "$mark" "$mark.lock" "$log" "$log.1" "$log.now"; do
  test -f "$each" && test ! -L "$each" || rm -rf -- "$each"
done
exec 8>"$mark.lock"
flock 8
known= by= code= took=
read -r known by code took 2>/dev/null <"$mark"
if test "$known" != "$stamp" || test "$by" != "$asker"; then
  rm -rf -- "$mark" "$log" "$log.1" "$log.now" "$pipe"
  mkfifo -- "$pipe" || exit 1
  (
    while dd bs=16384 count={KEPT_LOG} >"$log.now" && test -s "$log.now"; do
      test ! -e "$log" || mv -f -- "$log" "$log.1"
      mv -f -- "$log.now" "$log"
    done
  ) <"$pipe" >/dev/null 2>&1 8>&- &
  reader=$!
  began=$(date +%s)
  cd -- "$tree" || exit 1
  timeout -k 5 "$seconds" sh -c 'exec 8>&-; exec sh -c "$1"' hook "$command" </dev/null >"$pipe" 2>&1
  code=$?
  took=$(($(date +%s) - began))
  for try in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$reader" 2>/dev/null || break
    sleep 0.1
  done
  rm -f -- "$pipe"
  echo "$stamp $asker $code $took" >"$mark.new"
  mv -f -- "$mark.new" "$mark"
fi
echo "$code $took"
cat -- "$log.1" "$log" "$log.now" 2>/dev/null | tail -c {MOST_SAID}
"""

# The worktree's setup.sh as it wants to be run, or by the shell that there is.
SETUP_FILE = """\
if test -x .sandpiper/setup.sh; then exec ./.sandpiper/setup.sh; fi
if command -v bash >/dev/null; then exec bash .sandpiper/setup.sh; fi
exec sh .sandpiper/setup.sh"""
