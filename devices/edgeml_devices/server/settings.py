"""How a server is set up: where its data lies, where it listens, what it refuses for size or slowness."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from edgeml.errors import UsageError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost. Beyond it the answer is 408, 413, 429 or 503."""

    document_bytes: int = 1 << 20
    """A JSON document: a report, a rollout."""
    metadata_bytes: int = 5_000_000
    """Signed metadata; no TUF client takes a longer targets file."""
    blob_bytes: int = 16 << 30
    wait_s: float = 60.0
    """The longest long-poll."""
    waiting_polls: int = 100_000
    polls_per_device: int = 3
    """More at once: the oldest is told to come back later, so that clones of a device do not race."""
    header_s: float = 10.0
    """For a request's head, from its first byte or the connection's begin."""
    body_pause_s: float = 20.0
    """Between two pieces of a body."""
    body_grace_s: float = 15.0
    """A body may be slower than the minimum rate for so long."""
    body_bytes_per_s: int = 500


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server. Several processes of one server share the data folder and a PostgreSQL database."""

    data: Path
    """Folder of blobs, online keys and, by default, the database."""
    database_url: str = ""
    """``postgresql://USER:PASSWORD@HOST/NAME``; empty: SQLite in the data folder."""
    host: str = "127.0.0.1"
    port: int = 8350
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    """Believe ``X-Forwarded-For`` and ``X-Forwarded-Proto`` of whoever connects."""
    workers: int = 1
    tick_s: float = 1.0
    """Between two looks at the rollouts."""
    keep_health_days: float = 14.0
    keep_events_days: float = 90.0
    keep_telemetry_days: float = 30.0
    """Windows, their samples and the machines' facts."""
    keep_telemetry_hours_days: float = 400.0
    """Hourly sums."""
    alert_rules: Path | None = None
    """A file of rules as Prometheus has them."""
    alert_receivers: Path | None = None
    """A TOML file that says who hears of alerts."""
    limits: Limits = field(default_factory=Limits)

    @property
    def blobs(self) -> Path:
        return self.data / "blobs" / "sha256"

    @property
    def telemetry(self) -> Path:
        """Folder of telemetry where the database is SQLite."""
        return self.data / "telemetry"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def url(self) -> URL:
        """The database's address, with the driver that the server uses.

        Raises:
            UsageError: no address of a database that is supported.
        """
        return database_url(self.database_url or f"sqlite:///{self.data.absolute() / 'edgeml.db'}")


def database_url(text: str) -> URL:
    """Read a database's address and name the driver.

    Raises:
        UsageError: not an address, or of another kind of database.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UsageError("the database's address must be postgresql://USER:PASSWORD@HOST/NAME") from error
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise UsageError(f"databases of kind {other} are not supported; give postgresql://… or none")
