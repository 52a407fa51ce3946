"""What init and getty do on a console: asks who is there, gives a shell, and asks again when it ends.

    python login_program.py USER PASSWORD SHELL [ARGUMENT…]

Its standard input is the terminal. USER empty: the shell comes without a log-in, as on a rescue console.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios
import time


def main(user: str, password: str, shell: list[str]) -> None:
    terminal = os.ttyname(0)
    while True:
        child = os.fork()
        if child == 0:
            session(terminal, user, password, shell)
        os.waitpid(child, 0)
        try:
            os.write(1, b"\r\n")
        except OSError:  # the line is gone
            return


def session(terminal: str, user: str, password: str, shell: list[str]) -> None:
    os.setsid()
    handle = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(handle, termios.TIOCSCTTY, 0)
    for stream in (0, 1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    if user:
        log_in(user, password)
    os.write(1, b"\r\nBusyBox v1.36 built-in shell\r\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "TERM": "vt100",
        "USER": user or "root",
        "LANG": "C.UTF-8",
    }
    if "TMPDIR" in os.environ:
        environment["TMPDIR"] = os.environ["TMPDIR"]
    os.chdir(environment["HOME"])
    os.execvpe(shell[0], shell, environment)  # noqa: S606 - a log-in shell


def log_in(user: str, password: str) -> None:
    for _ in range(5):
        name = ask("\r\nboard login: ")
        if not name:
            continue
        if ask("Password: ", echo=False) == password and name == user:
            return
        time.sleep(0.2)
        os.write(1, b"\r\nLogin incorrect\r\n")
    sys.exit()


def ask(prompt: str, *, echo: bool = True) -> str:
    before = termios.tcgetattr(0)
    changed = termios.tcgetattr(0)
    if not echo:
        changed[3] &= ~termios.ECHO
    # what was typed ahead is thrown away, as login does
    termios.tcsetattr(0, termios.TCSAFLUSH, changed)
    os.write(1, prompt.encode())
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            sys.exit()
        line += data
    termios.tcsetattr(0, termios.TCSADRAIN, before)
    return line.decode(errors="replace").strip()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
