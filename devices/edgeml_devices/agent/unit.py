"""The agent as a systemd service."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from edgeml.errors import FleetError
from edgeml_devices.agent.disk import make_folder, write_file

UNIT_FILE: Final = Path("/etc/systemd/system/edgeml-agent.service")
SERVICE_HOME: Final = Path("/var/lib/edgeml")
USER: Final = "edgeml"


def unit_text(home: Path, user: str, python: str) -> str:
    """Give the unit: may write its home folder, and little else.

    What engines need is left open: memory that is both written and run (XNNPACK and OpenVINO make code),
    devices (an Edge TPU on USB).
    """
    return f"""\
[Unit]
Description=edgeml agent: keeps this device's models as the fleet's server wants them
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target

[Service]
Type=exec
User={user}
Environment=EDGEML_HOME={home}
ExecStart={python} -P -m edgeml agent run
Restart=always
RestartSec=5
TimeoutStopSec=20
UMask=0022
Nice=5
OOMScoreAdjust=200

NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={home}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""


def install_service(home: Path, user: str, unit_file: Path) -> None:
    """Make the user, the home folder and the unit. Needs no network; done again, it changes nothing.

    Raises:
        FleetError: a command of the system failed.
        OSError: a file cannot be written: this takes root.
    """
    _make_user(user, home)
    make_folder(home)
    entry = pwd.getpwnam(user)
    for place in (home, *home.rglob("*")):
        if not place.is_symlink():
            shutil.chown(place, entry.pw_uid, entry.pw_gid)
    write_file(unit_file, unit_text(home, user, sys.executable).encode())
    if Path("/run/systemd/system").is_dir():
        _run("systemctl", "daemon-reload")


def _make_user(user: str, home: Path) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        _run("useradd", "--system", "--home-dir", str(home), "--shell", "/usr/sbin/nologin", user)


def _run(*argv: str) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FleetError(f"{argv[0]} is not on this system; do by hand: {' '.join(argv)}") from error
    except subprocess.CalledProcessError as error:
        raise FleetError(f"{' '.join(argv)} failed: {error.stderr.strip()}") from error
