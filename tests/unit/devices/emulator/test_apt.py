from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images import apt
from edgeml_devices.emulator.images.apt import Deb, mirrors_of, own_mirrors, parse_uris, sources_text

from edgeml.errors import UsageError

SHA = "ab" * 32


def test_packages_are_read_from_what_apt_prints() -> None:
    printed = (
        "Reading package lists...\n"
        "'http://m.example/debian/pool/l/login_4.13%2bdfsg1_arm64.deb' login_1%3a4.13+dfsg1_arm64.deb 613724 "
        f"SHA256:{SHA}\n"
        f"'http://m.example/debian/pool/c/ca_1_all.deb' ca_1_all.deb 7 SHA256:{SHA}\n"
    )
    login, ca = parse_uris(printed)
    assert login == Deb("login_1%3a4.13+dfsg1_arm64.deb", SHA, 613724)
    assert (login.name, login.version) == ("login", "1:4.13+dfsg1")
    assert (ca.name, ca.version) == ("ca", "1")


def test_a_package_without_a_sha256_is_not_taken() -> None:
    assert list(parse_uris("'http://m.example/a_1_all.deb' a_1_all.deb 7 MD5Sum:abcd\n")) == []


TARGETS = """\
Packages https://third.example/node_20.x/
Packages http://one.example/debian/
Packages http://two.example/debian
Translation-en http://three.example/debian-security/
Packages http://one.example/debian-security/
"""


def test_the_mirrors_are_the_first_of_the_archive_and_of_security() -> None:
    assert mirrors_of(TARGETS) == ("http://one.example/debian/", "http://one.example/debian-security/")


def test_a_machine_without_a_debian_mirror_says_which_option_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "run", lambda *_: "Packages http://one.example/ubuntu/\n")
    with pytest.raises(UsageError, match="--mirror URL"):
        own_mirrors()


def test_sources_name_the_suites_of_each_mirror_and_the_keys() -> None:
    text = sources_text(["http://one.example/debian/", "http://one.example/debian-security/"])
    archive, security = text.split("\n\n")
    assert "Suites: bookworm bookworm-updates\n" in archive
    assert "Suites: bookworm-security\n" in security
    assert text.count(f"Signed-By: {apt.KEYRING}") == 2


def test_a_mirror_of_any_path_is_one_of_the_archive() -> None:
    assert apt.suites_of("http://one.example/mirror/of/it") == ("bookworm", "bookworm-updates")


def test_a_file_is_whole_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "a_1_all.deb"
    assert not apt.is_whole(path, SHA)
    path.write_bytes(b"")
    assert apt.is_whole(path, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert not apt.is_whole(path, SHA)
