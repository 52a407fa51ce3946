"""The audit log, and what `edgeml audit verify` sees after somebody wrote into the database."""

from __future__ import annotations

import json
import sqlite3

import pytest
from edgeml_devices.audit_chain import FIELDS, row_sha256

ANEW = (
    "UPDATE audit SET actor = :actor, detail = :detail, previous_sha256 = :previous_sha256, sha256 = :sha256"
    " WHERE id = :id"
)


@pytest.fixture
def log(own):
    own.do("publish", own.bundle(1))
    assert own.ask("audit", "verify")["status"] == "ok"
    return own


def write(process, *statements):
    """Write to the audit table as whoever owns the machine may: past the server, and past its triggers."""
    process.stop()
    file = process.data / "edgeml.db"
    with sqlite3.connect(file) as database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for statement, values in statements:
            database.execute(statement, values)
        for _, sql in triggers:
            database.execute(sql)
    database.close()
    process.start(port=int(process.url.rpartition(":")[2]))


def test_who_did_what_is_listed(log):
    rows = log.ask("audit", "list")["audit"]
    assert [row["action"] for row in rows[-2:]] == ["repository.publish", "release.publish"]
    assert rows[-1]["object"] == "kws/1"
    assert len(log.ask("audit", "list", "--last", 2)["audit"]) == 2
    (published,) = log.ask("audit", "list", "--action", "release.publish")["audit"]
    assert published == rows[-1]
    assert "release.publish  kws/1" in log.do("audit", "list")


def test_a_changed_row_is_found(log, process):
    write(process, ("UPDATE audit SET actor = 'admin:nobody' WHERE id = 2", ()))
    said = log.refused("audit", "verify")
    assert said.splitlines() == ["changed: row 2 is not what was written: its hash is another"]
    assert log.run("audit", "verify", "--json").exit_code == 1


def test_a_row_that_was_taken_out_is_found(log, process):
    write(process, ("DELETE FROM audit WHERE id = 2", ()))
    assert "row 3 follows row 1" in log.refused("audit", "verify")


def test_rows_that_were_cut_off_at_the_end_are_found(log, process):
    """The chain alone would not show it; the heads that were signed, and seen here, do."""
    write(process, ("DELETE FROM audit WHERE id > 2", ()))
    said = log.refused("audit", "verify")
    # the server's start wrote a new row 3
    assert "row 3 is not the one that was signed" in said
    assert "seen here before, is gone: the log ends at 3" in said


def test_a_log_that_was_written_anew_is_found_by_who_saw_the_old_one(log, process):
    """The server's owner can compute the chain and sign its head; not undo what others remember."""
    rows = log.ask("audit", "list")["audit"]
    rows[1]["actor"] = "admin:nobody"
    previous, statements = "0" * 64, []
    for row in rows:
        row["previous_sha256"], row["sha256"] = (
            previous,
            row_sha256(previous, {name: row[name] for name in FIELDS}),
        )
        previous = row["sha256"]
        columns = {**row, "detail": json.dumps(row["detail"])}
        statements.append((ANEW, columns))
    write(process, *statements)
    log.do("publish", log.bundle(2))  # signs a timestamp over the new chain
    said = log.refused("audit", "verify")
    assert f"row {len(rows)} is not the one that was seen here before" in said
    assert "not what was written" not in said
