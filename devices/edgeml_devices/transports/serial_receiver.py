"""The machine's end of a console line: a loop in POSIX sh that runs a request only if it arrived undamaged.

It is typed at a shell, so it is short; what the requests call is defined by requests. Besides what
``posix_shell`` needs: ``base64`` or ``od``, ``cksum``, ``dd``, ``stty``; ``dmesg`` is used where it helps.
"""

from __future__ import annotations

import re
from typing import Final

from edgeml_devices.transports.posix_shell import KEEP
from edgeml_devices.transports.serial_frames import cksum

LEAVE: Final = "#edgeml-exit"
"""Ends the loop, whoever started it; a shell takes it for a comment. A person types ``exit``."""
UNIT_BYTES: Final = 256
"""Files are read in multiples of this."""
_WORD_BYTES: Final = 160
_PLAIN: Final = re.compile(r"[A-Za-z0-9_,.:/=+-]")

_LOOP: Final = rf"""umask 077
d=$1 saved=$(stty -g 2>/dev/null) TERM=dumb t= l=
export TERM
leave() {{ rm -f "$d/answer" "$d/receiver"; rmdir "$d"; stty "$saved" 2>/dev/null; }}
stty -echo -isig -ixon -ixoff -iexten eof undef 2>/dev/null
if command -v base64 >/dev/null; then e() {{ base64; }}; else e() {{ od -An -v -tx1; }}; fi
while IFS= read -r x; do
case $x in
'#-'*) t=${{x#??}} ;;
'#+'*) t=$t${{x#??}} ;;
'#='*) [ "$t" ] || continue
i=${{t%% *}}
if [ "$(printf %s "$t" | cksum)" = "${{x#??}}" ] && [ "${{i%.*}}" = NONCE ]; then
[ "$i" = "$l" ] || {{ l=$i; {{ eval "$(printf %b "${{t#* }}")"; }} >"$d/answer" 2>&1 </dev/null; s=$?; }}
echo "<$i"; e <"$d/answer"
set -- $({{ echo "$i $s"; cat "$d/answer"; }} | cksum)
echo ">$i $s $1 $2"; echo ">$i $s $1 $2"
else echo '!'; fi
t= ;;
exit | '{LEAVE}') break ;;
esac
done
leave
"""

LIBRARY: Final = rf"""{KEEP}
append() {{
  [ "$at" != "$2" ] || {{ printf %s "$4" | base64 -d >>"$1" && at=$3; }} || return
  echo "$at"
}}
append_octal() {{
  [ "$at" != "$2" ] || {{ printf %b "$4" >>"$1" && at=$3; }} || return
  echo "$at"
}}
begin() {{ true >"$1" && at=0; }}
block() {{ dd if="$1" bs={UNIT_BYTES} skip="$2" count="$3" 2>/dev/null; }}
start() {{
  forget "$d/job"; mkdir "$d/job" || return
  (trap '' HUP; guarded=; keep "$d/job" "$@") >/dev/null 2>&1 </dev/null &
}}
poll() {{
  [ -e "$d/job/code" ] || return 1
  echo "$(cat "$d/job/code") $(($(wc -c <"$d/job/out"))) $(($(wc -c <"$d/job/err")))"
}}
stop() {{ true >"$d/job/late"; slay "$(cat "$d/job/session")"; }} 2>/dev/null
leave() {{
  trap '' HUP TERM
  [ ! -e "$d/job" ] || [ -e "$d/job/code" ] || {{ stop; sleep 1; }}
  forget "$d/job"
  rm -f "$d/answer" "$d/receiver"; rmdir "$d"
  [ -z "$level" ] || dmesg -n "$level"
  stty "$saved"
}} 2>/dev/null
trap 'leave; exit' HUP TERM
{{ read -r level more </proc/sys/kernel/printk; dmesg -n 1 || level=; }} 2>/dev/null
true
"""
"""What requests call: ``append`` and ``block`` move parts of a file, ``start``, ``poll``, ``stop`` a command.

``append FILE FROM TO TEXT`` appends only where ``at``, how much of the file there is, is FROM, and
prints ``at``: it may be sent again.
"""


def words(nonce: str) -> list[str]:
    r"""Give the loop as words of letters, digits and ``\0ooo`` for ``printf %b``.

    Were one damaged and run by the shell that it is typed at, it is the name of no command.
    """
    text = "".join(
        character if _PLAIN.fullmatch(character) else f"\\0{ord(character):03o}"
        for character in _LOOP.replace("NONCE", nonce)
    )
    return [text[begin : begin + _WORD_BYTES] for begin in range(0, len(text), _WORD_BYTES)]


def sums(numbers: list[int]) -> str:
    """Give the command that prints number, checksum and length of words, as they have arrived."""
    listed = " ".join(str(number) for number in numbers)
    return f'for i in {listed}; do echo "$i $(eval "printf %s \\"\\$e$i\\"" | cksum)"; done'


def word_sum(number: int, word: str) -> bytes:
    """Give the line that :func:`sums` prints for a word that has arrived."""
    return b"%d %d %d" % (number, cksum(word.encode()), len(word))


def launch(parts: list[str]) -> str:
    """Give the command that starts the loop, if all words have arrived."""
    whole = "".join(parts).encode()
    joined = "".join(f"$e{number}" for number in range(len(parts)))
    return (
        f'x={joined}; [ "$(printf %s "$x" | cksum)" = "{cksum(whole)} {len(whole)}" ] '
        '&& d=$(mktemp -d) && printf %b "$x" >"$d/receiver" && sh "$d/receiver" "$d"'
    )
