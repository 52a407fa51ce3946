"""The one place that reaches into python-tuf, and what only rises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edgeml_devices.agent.sources import FolderSource
from edgeml_devices.agent.trust import Trust, _Fetcher, set_reference_time
from tuf.api.exceptions import ExpiredMetadataError
from tuf.ngclient import Updater

from tests.integration.agent.tiny_repository import TinyRepository


@pytest.fixture
def repository(tmp_path: Path) -> TinyRepository:
    return TinyRepository(tmp_path / "repository", {"kws": "kws"})


def updater(repository: TinyRepository, folder: Path) -> Updater:
    folder.mkdir()
    source = _Fetcher(FolderSource(repository.folder))
    return Updater(str(folder), "metadata/", fetcher=source, bootstrap=repository.first_root)


def test_python_tuf_judges_expiry_by_the_time_that_is_set(repository: TinyRepository, tmp_path: Path) -> None:
    """Fails where python-tuf renames or no longer reads what `set_reference_time` sets."""
    updater(repository, tmp_path / "now").refresh()
    later = updater(repository, tmp_path / "later")
    assert isinstance(later._trusted_set.reference_time, datetime)
    set_reference_time(later, datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(ExpiredMetadataError):
        later.refresh()
    repository.timestamp.expires = repository.now - timedelta(days=1)
    repository.write_all()
    earlier = updater(repository, tmp_path / "earlier")
    set_reference_time(earlier, repository.now - timedelta(days=2))
    earlier.refresh()


def test_another_root_begins_anew(repository: TinyRepository, tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust")
    trust.pin(repository.first_root)
    (tmp_path / "trust" / "floors.json").write_text('{"kws": 9}')
    trust.pin(repository.first_root)
    assert trust.floor("kws") == 9
    trust.pin(TinyRepository(tmp_path / "other", {}).first_root)
    assert trust.floor("kws") == 0
    assert trust.is_pinned
