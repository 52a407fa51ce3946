"""What an operator does with devices, groups, tokens and releases, against a real server."""

from __future__ import annotations

import pytest

from tests.integration.publish.workshop import other_machine

TARGET = {"name": "raspberry-pi-5", "architecture": "aarch64", "cores": 4}


@pytest.fixture
def enrol(shared):
    """Enrol a device as its agent does; give its name and token."""
    process, shop = shared
    number = iter(range(1000))

    def enrol(prefix, **labels):
        texts = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
        join = shop.ask("tokens", "join", *texts)["token"]
        name, token = f"{prefix}-{next(number)}", f"{prefix}-{next(number)}-".ljust(43, "x")
        facts = {
            "target": TARGET,
            "engines": {"litert": "2.1"},
            "edgeml": "0.1.0",
            "system": "Linux \x1b[31m",
        }
        body = {"join_token": join, "device_token": token, "name": name, "facts": facts}
        status, answer = process.call("POST", "/v1/enrol", body, token="")
        assert status == 201
        return answer["name"], token

    return enrol


def test_devices_are_found_by_their_labels(shop, enrol):
    name, _ = enrol("berlin", site="berlin", ring="canary")
    other, _ = enrol("lyon", site="lyon")
    names = [
        one["name"] for one in shop.ask("devices", "list", "--selector", "site=berlin,ring=canary")["devices"]
    ]
    assert (name in names, other in names) == (True, False)
    table = shop.do("devices", "list")
    assert "ring=canary,site=berlin  raspberry-pi-5" in table
    assert shop.run("devices", "list", "--selector", "site=(").exit_code == 1


def test_labels_come_and_go(shop, enrol):
    name, _ = enrol("label", site="berlin", ring="a")
    assert shop.do("devices", "label", name, "ring=b", "site-") == f"{name}: ring=b\n"
    assert shop.ask("devices", "show", name)["labels"] == {"ring": "b"}
    assert "is no label" in shop.run("devices", "label", name, "ring").stderr


def test_a_device_cannot_write_to_the_operators_terminal(shop, enrol):
    name, _ = enrol("evil")
    assert "\x1b" not in shop.do("devices", "show", name)


def test_a_device_is_told_what_to_run_and_shows_it(shop, enrol):
    name, _ = enrol("assign")
    shop.do("publish", shop.bundle(1))
    assert (
        shop.do("devices", "assign", name, shop.model, 1) == f"{name}: {shop.model} is to be at release 1\n"
    )
    assert f"{shop.model} – → 1 not reported" in shop.do("devices", "list")
    shown = shop.do("devices", "show", name)
    assert "engines:   litert 2.1" in shown
    assert "to be:   release 1" in shown
    shop.do("devices", "assign", name, shop.model, "--remove")
    assert shop.ask("devices", "show", name)["models"][shop.model]["assigned"]["release"] is None
    shop.do("devices", "unassign", name, shop.model)
    assert shop.ask("devices", "show", name)["models"] == {}
    assert shop.run("devices", "assign", name, shop.model).exit_code == 2
    assert "error" in shop.refused("devices", "assign", name, shop.model, 9)


def test_what_a_device_reported_is_in_its_log(shop, enrol, shared):
    name, token = enrol("logs")
    device_id = shop.ask("devices", "show", name)["id"]
    event = {
        "seq": 1,
        "at": 1_764_000_000.0,
        "model": "kws",
        "release": 1,
        "attempt": 1,
        "state": "FAILED",
        "result": "FAILED_NO_STATE_CHANGE",
        "reason": "disk_full",
        "detail": "0 B of 2 MB free",
    }
    report = {"epoch": "e", "at": 1_764_000_001.0, "device_id": device_id, "seq": 1, "events": [event]}
    status, _ = shared[0].call("POST", "/v1/agent/reports", report, token=token)
    assert status == 200
    said = shop.do("devices", "logs", name, "--model", "kws")
    assert "kws 1  FAILED  FAILED_NO_STATE_CHANGE  disk_full  0 B of 2 MB free" in said
    assert shop.ask("devices", "logs", name, "--last", 1)["events"][0]["reason"] == "disk_full"
    assert shop.do("devices", "logs", name, "--model", "other") == ""


def test_a_retired_device_is_refused(shop, enrol, shared):
    name, token = enrol("retire")
    assert shared[0].call("GET", "/v1/agent/state?wait=0", token=token)[0] == 200
    unasked = shop.run("devices", "retire", name)
    assert unasked.exit_code == 2
    assert "nobody said yes, and nothing was changed; in a script give --yes" in unasked.stderr
    shop.do("devices", "retire", name, "--yes")
    assert shared[0].call("GET", "/v1/agent/state?wait=0", token=token)[0] == 401
    assert name not in shop.do("devices", "list")
    assert "retired" in shop.do("devices", "list", "--retired")


def test_a_device_gets_another_name(shop, enrol):
    name, _ = enrol("rename")
    new = f"{name}-new"
    assert shop.do("devices", "rename", name, new) == f"{name} is called {new}\n"
    assert shop.ask("devices", "show", new)["name"] == new
    assert "no device" in shop.refused("devices", "show", name)


def test_groups(shop, enrol):
    enrol("group", zone="g")
    assert shop.do("groups", "set", "zone-g", "zone=g") == "zone-g: now 1 device\n"
    assert "zone-g" in shop.do("groups", "list")
    (group,) = [one for one in shop.ask("groups", "list")["groups"] if one["name"] == "zone-g"]
    assert group["selector"] == "zone=g"
    shop.do("groups", "delete", "zone-g")
    assert "zone-g" not in shop.do("groups", "list")
    assert shop.refused("groups", "set", "broken", "a=(")


def test_tokens_have_roles_and_end(shop, tmp_path):
    made = shop.run("tokens", "create", "ci", "--role", "operator")
    ci = other_machine(shop, tmp_path / "ci", made.stdout.strip(), keys=("main",))
    ci.do("publish", ci.bundle(1))
    said = ci.refused("tokens", "list")
    assert "ask an admin for a token of a role that may" in said
    shop.do("tokens", "revoke", "ci")
    assert "give a token that the server knows" in ci.refused("publish", ci.bundle(2))
    assert "revoked" in shop.do("tokens", "list")


def test_a_join_token_is_revoked_by_its_id(shop, shared):
    made = shop.ask("tokens", "join", "--ttl", "30m", "--uses", 3)
    assert made["command"].startswith(f"edgeml agent enrol --server {shop.url} --join-token {made['token']} ")
    assert f"{made['id']}          3" in shop.do("tokens", "list")
    shop.do("tokens", "revoke", made["id"])
    body = {"join_token": made["token"], "device_token": "y" * 43}
    assert shared[0].call("POST", "/v1/enrol", body, token="")[0] == 401
    assert "no" in shop.refused("tokens", "revoke", "nobody")
    assert shop.run("tokens", "join", "--ttl", "soon").exit_code == 2


def test_a_join_command_without_a_repository_is_not_given(empty):
    assert "the server has no repository yet; make one: edgeml repo init" in empty.refused("tokens", "join")


def test_releases_are_listed_shown_and_withdrawn(shop, enrol):
    shop.do("publish", shop.bundle(1))
    shop.do("publish", shop.bundle(2))
    assert shop.listed() == [2, 1]
    shown = shop.do("releases", "show", shop.model, 2)
    assert "litert-float32" in shown
    assert "by admin:first" in shown
    assert shop.run("releases", "withdraw", shop.model, 2).exit_code != 0  # nobody said yes
    shop.do("releases", "withdraw", shop.model, 2, "--yes")
    assert "withdrawn" in shop.do("releases", "list", shop.model)
    name, _ = enrol("withdrawn")
    assert shop.refused("devices", "assign", name, shop.model, 2)
