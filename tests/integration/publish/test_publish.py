"""Publishing to a real server, with a stock TUF client as the judge."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgeml_devices.api_client import ApiClient
from tuf.ngclient import Updater

from edgeml.bundle import open_bundle
from edgeml.testing.networks import BadNetwork
from tests.integration.publish.workshop import MODEL, ExportFetcher, other_machine

BIG = bytes(range(256)) * 4000


def test_init_publish_and_a_stock_client_downloads(empty):
    said = empty.do("repo", "init")
    assert "2 of 3 sign: the keys of all roles" in said
    published = empty.ask("publish", empty.bundle(1, weights=BIG))
    assert published["status"] == "published"
    assert (published["model"], published["release"], published["family"]) == ("kws", 1, "main")
    assert published["uploaded_files"] == 2
    manifest = empty.manifest_on_device(1)
    assert manifest["name"] == "kws"
    assert empty.manifest_on_device(2) is None
    entry = manifest["variants"][0]["files"][0]
    with ApiClient(empty.url, empty.token) as client:
        assert client.get_bytes(f"/v1/blobs/sha256/{entry['sha256']}") == BIG
    assert empty.listed() == [1]
    assert "has a repository already" in empty.refused("repo", "init")


def test_a_machine_that_has_the_familys_key_alone_publishes(shop, tmp_path):
    """The keys of root and targets are offline."""
    ci = other_machine(shop, tmp_path / "ci", keys=("main",))
    first = ci.run("publish", ci.bundle(1))
    assert first.exit_code == 0
    assert "sees the repository of" in first.stderr
    assert "sees the repository of" not in ci.run("publish", ci.bundle(2)).stderr
    assert shop.manifest_on_device(2) is not None


def test_a_machine_without_the_familys_key_uploads_nothing(shop, tmp_path):
    other = other_machine(shop, tmp_path / "other", keys=("targets-1",))
    with BadNetwork(other.url) as line:
        other.url = line.url
        said = other.refused("publish", other.bundle(1, weights=BIG))
    assert "main has 0 of 1 signatures; may sign, too: main" in said
    assert line.sent_bytes < 10_000


def test_the_manifest_is_published_as_it_stands_in_the_bundle(shop, tmp_path):
    """Unknown fields and another order survive: a later edgeml may have written it."""
    folder = open_bundle(shop.bundle(1)).extract(tmp_path / "extracted")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    text = json.dumps({"of tomorrow": [1, 2]} | dict(reversed(manifest.items()))).encode()
    (folder / "manifest.json").write_bytes(text)
    published = shop.ask("publish", folder)
    assert published["manifest_sha256"] == hashlib.sha256(text).hexdigest()
    assert shop.manifest_on_device(1)["of tomorrow"] == [1, 2]


# --- numbers


def test_the_same_again_changes_nothing(shop):
    bundle = shop.bundle(1, weights=BIG)
    shop.do("publish", bundle)
    before = shop.ask("repo", "status")["roles"]
    with BadNetwork(shop.url) as line:
        shop.url, direct = line.url, shop.url
        again = shop.ask("publish", bundle)
        shop.url = direct
    assert (again["status"], again["uploaded_bytes"]) == ("known", 0)
    assert line.sent_bytes < 10_000
    versions = {role["role"]: role["version"] for role in before}
    assert {role["role"]: role["version"] for role in shop.ask("repo", "status")["roles"]} == versions


def test_a_number_never_changes_what_it_stands_for(shop):
    shop.do("publish", shop.bundle(1, weights=b"one"))
    shop.do("publish", shop.bundle(4, weights=b"four"))
    other = shop.bundle(1, weights=b"other")
    said = shop.refused("publish", other)
    assert f"{shop.model}, release 1 was published before with other content" in said
    assert "the next free number is 5: --release 5" in said
    published = shop.ask("publish", other, "--release", 5)
    assert published["release"] == 5
    assert shop.manifest_on_device(5)["release"] == 5
    assert shop.manifest_on_device(1)["release"] == 1


def test_a_number_below_the_floor_is_refused(shop):
    shop.do("publish", shop.bundle(1))
    shop.do("repo", "floor", shop.model, 7)
    said = shop.refused("publish", shop.bundle(6))
    assert f"devices refuse releases of {shop.model} below 7; publish it as --release 7" in said


def test_a_damaged_bundle_is_not_published(shop):
    bundle = shop.bundle(1, weights=BIG)
    content = bytearray(bundle.read_bytes())
    content[-5000] ^= 1
    bundle.write_bytes(content)
    assert "is damaged" in shop.refused("publish", bundle)
    assert shop.listed() == []


# --- bytes


def test_only_files_that_are_new_are_sent(shop):
    shop.do("publish", shop.bundle(1, weights=BIG))
    with BadNetwork(shop.url) as line:
        shop.url = line.url
        # the weights stay, the labels stay: only the manifest differs
        same = shop.ask("publish", shop.bundle(2, weights=BIG))
        same_bytes = line.sent_bytes
        other = shop.ask("publish", shop.bundle(3, weights=BIG + b"!"))
    assert (same["uploaded_files"], same["uploaded_bytes"]) == (0, 0)
    assert same_bytes < 20_000
    assert (other["uploaded_files"], other["uploaded_bytes"]) == (1, len(BIG) + 1)
    assert len(BIG) < line.sent_bytes - same_bytes < len(BIG) + 20_000


def test_a_blob_is_stored_once(shop, data):
    weights = BIG + b"once"
    for release in (1, 2, 3):
        shop.do("publish", shop.bundle(release, weights=weights))
    stored = [file for file in data.rglob("*") if file.is_file() and file.stat().st_size == len(weights)]
    assert len(stored) == 1


# --- exports


def test_an_export_is_all_a_stock_client_needs(own, tmp_path):
    own.do("publish", own.bundle(1))
    own.do("keys", "rotate", "root-1")
    exported = tmp_path / "usb"
    assert own.ask("publish", own.bundle(2, weights=BIG), "--export", exported)["export"] == str(exported)
    metadata = sorted(file.name for file in (exported / "metadata").iterdir())
    assert "timestamp.json" in metadata
    assert {"1.root.json", "2.root.json"} <= set(metadata)
    device = tmp_path / "device"
    (device / "targets").mkdir(parents=True)
    client = Updater(
        str(device / "metadata"),
        "file://export/metadata/",
        str(device / "targets"),
        "file://export/targets/",
        fetcher=ExportFetcher(exported),
        bootstrap=(exported / "metadata" / "1.root.json").read_bytes(),
    )
    target = client.get_targetinfo("models/kws/2.json")
    manifest = json.loads(Path(client.download_target(target)).read_bytes())
    entry = next(one for variant in manifest["variants"] for one in variant["files"] if one["path"] == MODEL)
    assert (exported / "blobs" / "sha256" / entry["sha256"]).read_bytes() == BIG


def test_a_release_is_exported_later_by_who_has_no_keys(shop, tmp_path):
    shop.do("publish", shop.bundle(1, weights=BIG))
    token = shop.ask("tokens", "create", "visitor", "--role", "viewer")["token"]
    viewer, usb = other_machine(shop, tmp_path / "viewer", token), tmp_path / "usb"
    exported = viewer.ask("releases", "export", shop.model, 1, "--output", usb)
    assert exported["size_bytes"] == len(BIG) + 35_000
    again = viewer.run("releases", "export", shop.model, 1, "--output", usb)
    assert (again.exit_code, "is not an empty folder" in again.stderr) == (2, True)
    unknown = viewer.run("releases", "export", shop.model, 9, "--output", tmp_path / "usb-9")
    assert f"no release 9 of {shop.model} was signed; there are: [1]" in unknown.stderr
    assert not (tmp_path / "usb-9").exists()


def test_a_damaged_blob_is_not_exported(shop, data, tmp_path):
    weights = BIG + b"damaged"
    shop.do("publish", shop.bundle(1, weights=weights))
    (blob,) = [file for file in data.rglob("*") if file.is_file() and file.stat().st_size == len(weights)]
    blob.chmod(0o600)
    blob.write_bytes(weights[:-1] + b"?")
    said = shop.refused("releases", "export", shop.model, 1, "--output", tmp_path / "usb")
    assert "is damaged: its hash is another" in said
    assert not (tmp_path / "usb").exists()


def test_people_who_publish_at_the_same_moment_all_succeed(shop):
    running = [shop.start("publish", shop.bundle(release)) for release in (1, 2, 3)]
    said = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert all(shop.manifest_on_device(release) for release in (1, 2, 3))


# --- exports


def test_an_export_makes_the_folders_around_it(shop, tmp_path):
    shop.do("publish", shop.bundle(1), "--export", tmp_path / "usb" / "new" / "kws-1")
    assert (tmp_path / "usb" / "new" / "kws-1" / "metadata" / "1.root.json").is_file()


def test_nothing_is_published_where_the_export_could_not_be_written(shop, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = shop.run("publish", shop.bundle(1), "--export", tmp_path / "file" / "kws-1")
    assert done.exit_code == 2
    assert "choose another folder" in done.stderr
    assert shop.listed() == []


def test_publishing_again_says_that_the_server_has_it(shop):
    shop.do("publish", shop.bundle(1))
    assert "published before, the server has all of it" in shop.do("publish", shop.bundle(1))


def test_without_a_token_it_says_which_option_to_give(shop):
    shop.token = ""
    said = shop.refused("devices", "list")
    assert "who you are" in said
    assert "EDGEML_TOKEN" in said
    assert "Bearer" not in said
