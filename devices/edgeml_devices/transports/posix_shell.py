"""What the ways to a machine run there: POSIX sh that starts, watches and kills commands and checks files.

A machine needs a POSIX ``sh`` and, from coreutils or busybox: ``cat``, ``mkdir``, ``mktemp``, ``mv``,
``rm``, ``setsid``, ``sleep``, ``tail``, ``wc`` and one of ``sha256sum``, ``openssl``, ``shasum``.
``/proc`` is how a command's children are found when they left its process group.
"""

from __future__ import annotations

import math
import os
import posixpath
import shlex
from typing import TYPE_CHECKING, Final

from edgeml.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCHDOG_GRACE_S: Final = 5
"""The machine kills a command itself so long after its time: when the way to it is gone."""
_LONGEST_SLEEP_S: Final = 10**8
_HASH_DIGITS: Final = 16
_BASE_BYTES: Final = 150
"""Bytes of a file's name that stand in the name of its part: names end at 255 bytes."""

SLAY: Final = r"""
slay() {
  kill -9 "-$1" "$1"
  for pass in 1 2 3 4 5 6 7 8 9; do
    found=
    for stat in /proc/[0-9]*/stat; do
      { read -r line <"$stat"; } 2>/dev/null || continue
      pid=${stat#/proc/}
      set -- "$1" ${line##*) }
      case $2 in [ZX]) continue ;; esac
      [ "$5" = "$1" ] && kill -9 "${pid%/stat}" && found=1
    done
    [ "$found" ] || break
  done
} 2>/dev/null
"""
"""``slay SESSION`` kills a session: the process that leads it, its group, and who left the group."""

PROGRAM: Final = r"""
program() (
  case $1 in */*) [ -f "$1" ] && [ -x "$1" ]; exit ;; esac
  set -f; IFS=:
  for place in $PATH; do
    [ -f "${place:-.}/$1" ] && [ -x "${place:-.}/$1" ] && exit 0
  done
  exit 1
)
"""
"""``program NAME`` says whether there is such a program."""

KEEP: Final = rf"""slay={shlex.quote(SLAY.strip())}
eval "$slay"
{PROGRAM}keep() {{
  job=$1 seconds=$2; shift 2
  true >"$job/out"; true >"$job/err"
  if program "$1"; then
    setsid sh -c 'exec "$@"' sh "$@" </dev/null >"$job/out" 2>"$job/err" 3<&- &
    session=$!
    echo "$session" >"$job/session"
    setsid sh -c 'sleep "$2"; [ -e "$0/code" ] || {{ true >"$0/late"; eval "$3"; slay "$1"; }}' \
      "$job" "$session" "$seconds" "$slay" </dev/null >/dev/null 2>&1 3<&- &
    watchdog=$!
    [ -z "$guarded" ] || {{
      (cat <&3; [ -e "$job/code" ] || {{ true >"$job/late"; slay "$session"; }}) >/dev/null 2>&1 &
      guard=$!
    }}
    wait "$session"; code=$?
    kill -9 "-$watchdog" "$watchdog" $guard
    [ ! -e "$job/late" ] || slay "$session"
  else
    code=missing
  fi 2>/dev/null
  [ ! -e "$job/late" ] || code=late
  echo "$code" >"$job/code.new"; mv "$job/code.new" "$job/code"
}}
forget() {{
  rm -f "$1/out" "$1/err" "$1/code" "$1/code.new" "$1/late" "$1/session"
  rmdir "$1"
}} 2>/dev/null
"""
"""``keep FOLDER SECONDS ARGV…`` runs a command to its end, or kills it when its time is over.

It kills once more itself: it ends whoever kills as soon as the command has ended, its children or not.

Leaves ``out``, ``err`` and ``code`` in the folder: the exit code, ``late``, or ``missing`` for no such
program. With ``guarded`` set, the end of file descriptor 3 kills the command, too. ``forget FOLDER``
removes what ``keep`` left, by name.
"""

SHA256: Final = r"""
sha256() {
  if command -v sha256sum >/dev/null; then set -- "$(sha256sum <"$1")"
  elif command -v openssl >/dev/null; then set -- "$(openssl dgst -sha256 <"$1")"; set -- "${1##* }"
  else set -- "$(shasum -a 256 <"$1")"; fi
  echo "${1%% *}"
}
"""
"""``sha256 FILE`` prints its hash in hex."""

PART_STATE: Final = rf"""{SHA256}
[ -f "$1" ] || exit 0
echo "$(($(wc -c <"$1"))) $(sha256 "$1")"
"""
"""PART: prints size and hash of what an earlier transfer left; nothing when there is none."""

FINISH_PUT: Final = rf"""{SHA256}
size=$(($(wc -c <"$1")))
[ "$size" -ge "$3" ] || {{ echo "cut after $size of $3 bytes" >&2; exit 75; }}
if [ -d "$2" ]; then echo "$2: is a folder" >&2; rm -f "$1"; exit 73; fi
if [ "$(sha256 "$1")" != "$4" ]; then echo "its hash is not $4" >&2; rm -f "$1"; exit 74; fi
sync "$1" 2>/dev/null || sync
mv -f "$1" "$2" || {{ rm -f "$1"; exit 73; }}
"""
"""PART FILE SIZE SHA256: checks what has arrived and gives it its name. A part that was cut stays."""

FILE_STATE: Final = rf"""{SHA256}
[ -e "$1" ] || {{ echo "$1: there is no such file" >&2; exit 66; }}
[ -f "$1" ] || {{ echo "$1: is not a file" >&2; exit 66; }}
[ -r "$1" ] || {{ echo "$1: permission denied" >&2; exit 66; }}
echo "$(($(wc -c <"$1"))) $(sha256 "$1")"
"""
"""FILE: prints its size and hash."""


def quoted(argv: Sequence[str]) -> str:
    """Give arguments as sh reads them.

    Raises:
        TransportError: one holds a NUL, or there is none.
    """
    if not argv:
        raise TransportError("there is no command to run")
    if any("\0" in part for part in argv):
        raise TransportError(f"{shown(argv)} could not be started: an argument holds a NUL character")
    return shlex.join(argv)


def shown(argv: Sequence[str]) -> str:
    """Give a command for a message."""
    return repr(" ".join(argv))


def kept(timeout_s: float, argv: Sequence[str]) -> str:
    """Give the arguments of ``keep`` behind its folder."""
    seconds = min(math.ceil(max(timeout_s, 0)) + WATCHDOG_GRACE_S, _LONGEST_SLEEP_S)
    return f"{seconds} {quoted(argv)}"


def plain_path(remote: str) -> str:
    """Give a path on the machine that no command takes for an option.

    Raises:
        TransportError: it names no file.
    """
    if not remote or remote.endswith("/") or "\0" in remote:
        raise TransportError(f"{remote!r} names no file on the machine")
    return remote if remote.startswith("/") else f"./{remote}"


def part_path(target: str, sha256: str) -> str:
    """Give the path beside a file that holds what has arrived of this content."""
    folder, name = posixpath.split(target)
    base = os.fsdecode(os.fsencode(name)[:_BASE_BYTES])
    return posixpath.join(folder, f".{base}.{sha256[:_HASH_DIGITS]}.part")


def read_state(text: str, subject: str) -> tuple[int, str] | None:
    """Read what :data:`PART_STATE` and :data:`FILE_STATE` print: size in bytes and SHA-256.

    Raises:
        TransportError: the machine has no tool for the hash.
    """
    if not text.strip():
        return None
    size, _, sha256 = text.strip().partition(" ")
    if not size.isdigit() or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):  # noqa: PLR2004 - hex digits
        raise TransportError(
            f"{subject}: the machine gives no SHA-256; it needs sha256sum, openssl or shasum"
        )
    return int(size), sha256
