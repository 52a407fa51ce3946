"""The contract of a conversion step as tests: subclass, give ``step``, ``request_`` and ``samples``.

```python
from edgeml.testing.steps import StepContract

class TestMine(StepContract):
    @pytest.fixture
    def step(self) -> ConversionStep:
        return next(step for step in plugins.conversion_steps() if step.name == "mine")

    @pytest.fixture
    def request_(self, tmp_path: Path) -> StepRequest:
        ...
```
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from edgeml import plugins
from edgeml.errors import EdgemlError, ModelFileError
from edgeml.words import ARTIFACT_FILE, RUNTIME_OF_FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml.arrays import Array
    from edgeml.converter import ConversionStep, StepRequest, StepResult
    from edgeml.words import Format

HOP_TOLERANCE: Final = 1e-3
"""Share of the largest absolute output that a float32 hop may be off."""
QUANTIZED_COSINE: Final = 0.9
"""Below it a quantization is broken rather than coarse."""
TOOLS: Final = ("onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "tensorflow", "torch", "keras")


class StepContract:
    """What every conversion step keeps."""

    @pytest.fixture
    def step(self) -> ConversionStep:
        raise NotImplementedError("give the step in a fixture step")

    @pytest.fixture
    def request_(self) -> StepRequest:
        """A sound source, an empty output folder, and what else the step needs."""
        raise NotImplementedError("give a request in a fixture request_")

    @pytest.fixture
    def samples(self) -> Mapping[str, Array]:
        """Float samples [N, …] by input name, as the source takes them."""
        raise NotImplementedError("give samples in a fixture samples")

    @pytest.fixture
    def reference(self) -> Mapping[str, Array] | None:
        """The source's outputs for the samples; ``None`` if the step's own ``source_outputs`` serve."""
        return None

    def test_it_gives_what_the_source_gives_and_touches_nothing_else(
        self,
        step: ConversionStep,
        request_: StepRequest,
        samples: Mapping[str, Array],
        reference: Mapping[str, Array] | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        scratch, elsewhere = tmp_path / "scratch", tmp_path / "elsewhere"
        scratch.mkdir()
        elsewhere.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        monkeypatch.chdir(elsewhere)
        before, beside = fingerprint(request_.source), _names(request_.source.parent)

        result = step.run(request_)

        assert fingerprint(request_.source) == before
        assert _names(request_.source.parent) == beside
        assert _names(scratch) == []
        assert _names(elsewhere) == []
        assert result.artifact == request_.output_dir / ARTIFACT_FILE[step.target.format]
        assert set(_names(request_.output_dir)) == _own_files(step, result)
        expected = reference if reference is not None else _source_outputs(result)
        if expected is None:
            assert any(finding.code == "source-not-run" for finding in result.findings)
            return
        given = run_all(result.artifact, step.target.format, samples, result.tensor_names)
        assert set(given) == set(expected)
        exact = step.source.scheme == step.target.scheme == "float32"
        for name, value in expected.items():
            assert given[name].shape == value.shape
            limit = HOP_TOLERANCE * float(np.abs(value).max()) if exact else np.inf
            assert float(np.abs(given[name] - value).max()) <= limit, name
            assert _cosine(given[name], value) >= QUANTIZED_COSINE, name

    def test_a_truncated_source_is_our_error(
        self, step: ConversionStep, request_: StepRequest, tmp_path: Path
    ) -> None:
        damaged = truncated(request_.source, tmp_path / "damaged")
        with pytest.raises(EdgemlError) as caught:
            step.run(replace(request_, source=damaged))
        assert damaged.name in str(caught.value) or "saved_model.pb" in str(caught.value)

    def test_a_missing_source_is_a_model_file_error(
        self, step: ConversionStep, request_: StepRequest, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelFileError, match="no-such-model"):
            step.run(replace(request_, source=tmp_path / "no-such-model.onnx"))


def imported_tools() -> list[str]:
    """Give the tools that finding and importing all registered steps imports; a fresh interpreter tells."""
    code = (
        "import json, sys; from edgeml import plugins; "
        "[(s.name, s.source, s.target, s.requires, s.cost) for s in plugins.conversion_steps()]; "
        f"print(json.dumps([m for m in {TOOLS!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def fingerprint(path: Path) -> str:
    """Hash a file, or the names and contents of a folder."""
    digest = hashlib.sha256()
    for item in sorted(path.rglob("*")) if path.is_dir() else [path]:
        digest.update(item.name.encode())
        if item.is_file():
            digest.update(item.read_bytes())
    return digest.hexdigest()


def truncated(source: Path, folder: Path) -> Path:
    """Copy a model to ``folder`` with the second half of its largest file cut off."""
    import shutil

    folder.mkdir()
    copy = folder / source.name
    if source.is_dir():
        shutil.copytree(source, copy)
        target = copy / "saved_model.pb"
    else:
        shutil.copyfile(source, copy)
        weights = source.with_suffix(".bin")
        if source.suffix == ".xml" and weights.is_file():
            shutil.copyfile(weights, folder / weights.name)
        target = copy
    content = target.read_bytes()
    target.write_bytes(content[: len(content) // 2])
    return copy


def run_all(
    artifact: Path, format_: Format, samples: Mapping[str, Array], names: Mapping[str, str]
) -> dict[str, Array]:
    """Run an artifact on samples [N, …], one at a time; outputs come under the source's names."""
    with plugins.runtime(RUNTIME_OF_FORMAT[format_]).load(artifact) as session:
        rows = []
        for index in range(len(next(iter(samples.values())))):
            one = {name: value[index : index + 1] for name, value in samples.items()}
            given = {spec.name: one[names.get(spec.name, spec.name)] for spec in session.inputs}
            rows.append(session.run(given))
    return {names.get(name, name): np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _own_files(step: ConversionStep, result: StepResult) -> set[str]:
    own = {ARTIFACT_FILE[step.target.format]}
    if step.target.format == "openvino":
        own.add("model.bin")
    if result.source_outputs is not None:
        own.add(result.source_outputs.name)
    return own


def _source_outputs(result: StepResult) -> dict[str, Array] | None:
    if result.source_outputs is None:
        return None
    with np.load(result.source_outputs) as file:
        return {name: file[name] for name in file.files}


def _names(folder: Path) -> Sequence[str]:
    return sorted(item.name for item in folder.iterdir())


def _cosine(left: Array, right: Array) -> float:
    one, other = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / max(norms, 1e-30)
