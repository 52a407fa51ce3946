"""The JSON objects of the operators' part of the interface. Times are Unix seconds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from edgeml_devices.server.bodies import Body

Name = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Labels = dict[str, str]


# --- devices


class AssignmentAnswer(BaseModel):
    """What the server wants a device to run."""

    release: int | None = Field(description="Null: the model is to be removed.")
    attempt: int
    hold: bool
    open_until: float | None = Field(description="When the maintenance window closes.")
    on_abort: str
    rollout: str | None
    changed_at: float


class StatusAnswer(BaseModel):
    """What a device last said of one model."""

    state: str
    running: int | None
    manifest_sha256: str | None
    variant: str | None
    target: int | None
    attempt: int
    result: str | None
    reason: str | None
    detail: str
    rollout: str | None
    ready: bool
    selftest: dict[str, Any]
    reported_at: float


class DeviceModel(BaseModel):
    """One model on one device: as it is to be, and as it is."""

    assigned: AssignmentAnswer | None
    status: StatusAnswer | None


class DeviceAnswer(BaseModel):
    """A device."""

    id: str
    name: str
    labels: Labels
    facts: dict[str, Any] | None
    enrolled_at: float
    retired_at: float | None
    last_seen: float | None
    generation: int
    reported_generation: int | None
    clock_offset_s: float | None = Field(description="The device's clock minus the server's.")
    penalty_until: float | None
    models: dict[str, DeviceModel]


class DeviceList(BaseModel):
    """A page of devices, by name."""

    devices: list[DeviceAnswer]
    next: str | None = Field(description="Give it as `after` for the next page.")


class EventAnswer(BaseModel):
    """A change of state that a device reported."""

    id: int
    epoch: str
    seq: int
    at: float = Field(description="The device's clock.")
    received_at: float
    model: str
    release: int | None
    attempt: int
    state: str
    result: str | None
    reason: str | None
    detail: str
    rollout: str | None
    variant: str | None


class EventList(BaseModel):
    """A page of events, the newest first."""

    events: list[EventAnswer]
    next: str | None


class DeviceChange(Body):
    """What is to be changed of a device; labels are merged, a null value removes one."""

    name: str | None = None
    labels: dict[str, str | None] = Field(default_factory=dict)


class AssignmentBody(Body):
    """What one device is to run."""

    release: int | None = Field(ge=0, le=2**63 - 1, description="Null: remove the model.")
    hold: bool = Field(default=False, description="Fetch and test, but do not switch yet.")


# --- groups and tokens


class GroupBody(Body):
    """Which devices."""

    selector: str


class GroupAnswer(BaseModel):
    """A named selector."""

    name: str
    selector: str
    created_at: float
    devices: int = Field(description="How many it chooses now.")


class GroupList(BaseModel):
    """All groups."""

    groups: list[GroupAnswer]
    next: str | None = None


class TokenBody(Body):
    """A token to be made."""

    name: str
    role: Literal["admin", "operator", "viewer"]


class TokenAnswer(BaseModel):
    """A token; its secret is shown once, by the call that makes it."""

    id: str
    name: str
    role: str
    created_at: float
    revoked_at: float | None


class NewToken(TokenAnswer):
    """A token with its secret."""

    token: str


class TokenList(BaseModel):
    """All tokens."""

    tokens: list[TokenAnswer]
    next: str | None = None


class JoinTokenBody(Body):
    """A join token to be made."""

    labels: Labels = Field(default_factory=dict)
    uses: int = Field(default=1, ge=1, le=1_000_000)
    ttl_s: float = Field(default=3600.0, gt=0, le=366 * 86400.0)


class JoinTokenAnswer(BaseModel):
    """A join token; its secret is shown once."""

    id: str
    labels: Labels
    uses_left: int
    created_at: float
    expires_at: float
    revoked_at: float | None


class NewJoinToken(JoinTokenAnswer):
    """A join token with its secret."""

    token: str


class JoinTokenList(BaseModel):
    """All join tokens."""

    join_tokens: list[JoinTokenAnswer]
    next: str | None = None


# --- releases, repository


class ReleaseBody(Body):
    """Which signed release to list."""

    model: Name
    release: int = Field(ge=0, le=2**63 - 1)


class ReleaseAnswer(BaseModel):
    """A release that devices can be told to run."""

    model: str
    release: int
    family: str
    manifest_sha256: str
    size_bytes: int = Field(description="Of all files together.")
    published_at: float
    published_by: str
    withdrawn_at: float | None


class ReleaseDetail(ReleaseAnswer):
    """A release with its manifest."""

    manifest: dict[str, Any]


class ReleaseList(BaseModel):
    """Releases, by model, the newest first."""

    releases: list[ReleaseAnswer]
    next: str | None = None


class RoleAnswer(BaseModel):
    """The newest metadata of a role."""

    version: int
    expires_at: float


class RepositoryAnswer(BaseModel):
    """The signed repository."""

    initialised: bool
    roles: dict[str, RoleAnswer]


class RolesAnswer(BaseModel):
    """The newest version of each role."""

    roles: dict[str, int]


# --- audit, server


class AuditRow(BaseModel):
    """One thing that happened."""

    id: int
    at: float
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    previous_sha256: str
    sha256: str


class AuditList(BaseModel):
    """A page of the audit log, the oldest first."""

    audit: list[AuditRow]
    next: str | None


class AuditHead(BaseModel):
    """The last row of the audit log."""

    id: int
    sha256: str


class Expiring(BaseModel):
    """Metadata that somebody must sign again."""

    role: str
    expires_at: float


class ServerAnswer(BaseModel):
    """The server itself."""

    version: str
    database: str
    devices: int
    online: int = Field(description="Devices that were heard in the last two minutes.")
    releases: int
    repository: bool = Field(description="Whether it was initialised.")
    expiring: list[Expiring] = Field(description="Offline roles that expire within 14 days.")
