"""``edgeml.load``: a bundle, a model file or an installed model, made a ``Model`` of."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml import plugins
from edgeml.choice import Choice, choose, lacking_here, options_here
from edgeml.edgetpu import OPTIONS, source_beside
from edgeml.engines import engine
from edgeml.errors import AcceleratorError, BundleError, EngineMissingError, ModelFileError, UsageError
from edgeml.fallback import FallbackWarning, FallingBack, reason_of
from edgeml.formats import TITLE, identify
from edgeml.manifest import Manifest, Variant
from edgeml.model import Loaded, Model, ModelSpec, loaded
from edgeml.runtime import Runtime, Session
from edgeml.settings import settings
from edgeml.targets import host
from edgeml.tensors import Shape, TensorSpec
from edgeml.words import FORMAT_OF_RUNTIME, RUNTIME_OF_FORMAT, Format, RuntimeName

if TYPE_CHECKING:
    from edgeml.bundle import Bundle
    from edgeml.installed import InstalledModel
    from edgeml.telemetry.features import InputFeatures


class OtherMachineWarning(UserWarning):
    """The variant that was loaded was made for another kind of machine."""


def load(
    source: str | Path,
    *,
    runtime: str | None = None,
    variant: str | None = None,
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
    follow: bool = True,
) -> Model:
    """Load a model to run on this machine.

    Args:
        source: a bundle, an extracted bundle, a model file (ONNX, TFLite, OpenVINO), or the name of an
            installed model (its current release).
        runtime: use this one; by default the variant decides, or the file's format.
        variant: use this one of the bundle; by default what suits this machine best.
        threads: engine threads; by default as many as the variant was measured with, else 1.
        options: engine options as texts, over those that the variant was measured with.
        follow: whether an installed model goes over to a new release when the device switches, with the
            same arguments, and tells the device's agent how it does. What has a path stays as it is.

    Warns:
        OtherMachineWarning: nothing in the bundle was made for this kind of machine.
        FallbackWarning: it was compiled for an accelerator that cannot be used, and runs on the CPU.

    Raises:
        UsageError: no such name, variant or runtime.
        BundleError: the bundle is damaged.
        ModelFileError: the file is missing, damaged, or of a format that no runtime reads.
        EngineMissingError: no engine that could run it is installed; says how to install one.
        InferenceError: the engine refuses the model.
        AcceleratorError: it was compiled for an accelerator that cannot be used, and its source is not there.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads={threads}: use 1 or more")
    texts = dict(options or {}) | ({} if threads is None else {"threads": str(threads)})
    path = Path(source)
    # not Path.exists, which raises in a folder that may not be looked into, as after sudo -u
    is_there = os.path.exists(path)  # noqa: PTH110
    if isinstance(source, Path) or is_there or path.suffix or len(path.parts) != 1:
        return Model(_load(path, runtime, variant, texts))
    from edgeml.following import follow_current, load_current

    model = _installed(source)

    def load_release(folder: Path) -> Loaded:
        return _load(folder, runtime, variant, texts)

    if follow:
        return follow_current(model, load_release)
    return Model(load_current(model, load_release)[1])


def _load(path: Path, runtime: str | None, variant: str | None, texts: Mapping[str, str]) -> Loaded:
    from edgeml.bundle import is_bundle  # half of the import's time, paid when it is used

    if is_bundle(path):
        return _load_bundle(path, runtime, variant, texts)
    if variant is not None:
        raise UsageError(f"{path} is a model file, not a bundle: it has no variant {variant!r}")
    return _load_file(path, runtime, texts)


def _installed(name: str) -> InstalledModel:
    """Find an installed model.

    Raises:
        UsageError: none of that name has a current release; lists those that have.
    """
    from edgeml.bundle_checks import is_bundle_name
    from edgeml.installed import MODELS, InstalledModel, installed_models

    home = settings().home
    if is_bundle_name(name) and InstalledModel(home, name).current.exists():
        return InstalledModel(home, name)
    names = ", ".join(model.name for model in installed_models(home) if model.current.exists()) or "none"
    raise UsageError(f"no file and no installed model {name!r}; installed in {home / MODELS}: {names}")


# --- model files


def _load_file(path: Path, runtime: str | None, texts: Mapping[str, str]) -> Loaded:
    found = identify(path)
    reader = RUNTIME_OF_FORMAT.get(found)
    if runtime is None:
        runtime = _installed_reader(path, found, reader)
    elif runtime in FORMAT_OF_RUNTIME and runtime != reader:
        raise ModelFileError(f"{path} is {TITLE[found]}, which {runtime} does not read; convert it first")
    try:
        session = _session(path.name, _driver(runtime), path, source_beside(path), texts)
    except AcceleratorError as error:
        raise AcceleratorError(f"{error}; the CPU runs only the source .tflite") from error
    return loaded(session, ModelSpec(session.inputs, session.outputs), name=path.stem, runtime=runtime)


def _installed_reader(path: Path, found: Format, reader: RuntimeName | None) -> str:
    if reader is None:
        raise ModelFileError(f"{path} is {TITLE[found]}, which no runtime reads: run edgeml convert {path}")
    if reader not in plugins.names(plugins.RUNTIME_GROUP):
        raise EngineMissingError(
            f"no runtime here reads {TITLE[found]}. Install it: pip install 'edgeml-core[device]'"
        )
    return reader


def _driver(runtime: str) -> Runtime:
    found = engine(runtime)
    if found is not None and found.version is None:
        raise EngineMissingError(f"runtime {runtime} needs an engine: {found.lacking}")
    return plugins.runtime(runtime)


def _session(
    name: str, driver: Runtime, file: Path, source: Path | None, texts: Mapping[str, str]
) -> Session:
    """Load an artifact; one that has a source falls back to it."""

    def load_it() -> Session:
        return driver.load(file, driver.options(texts))

    if source is None:
        return load_it()
    plain = {key: text for key, text in texts.items() if key not in OPTIONS}
    return FallingBack(name, file, load_it, lambda: driver.load(source, driver.options(plain)))


# --- bundles


def _load_bundle(path: Path, runtime: str | None, variant: str | None, texts: Mapping[str, str]) -> Loaded:
    from edgeml.installed import is_installed, open_release

    bundle = open_release(path)
    manifest = bundle.manifest
    was_tested_here = is_installed(path)
    if was_tested_here and runtime is None and variant is None:
        variant = manifest.variants[0].name
    choices = choose(manifest, host(), lacking_here, runtime=runtime, variant=variant)
    labels = () if manifest.labels is None else _labels(bundle, manifest.labels)
    chosen, session = _first_usable(bundle, choices, texts)
    if chosen.warning is not None and not was_tested_here and reason_of(session) is None:
        warnings.warn(chosen.warning, OtherMachineWarning, stacklevel=4)
    one = chosen.variant
    try:
        spec = _spec(manifest, one, session, labels)
        return loaded(
            session,
            spec,
            name=manifest.name,
            runtime=one.runtime,
            release=manifest.release,
            variant=one.name,
            features=_features(manifest),
        )
    except BaseException:
        session.close()
        raise


def _features(manifest: Manifest) -> tuple[InputFeatures, ...]:
    """Say what is recorded of inputs: nothing where there is no reference to hold it against."""
    if not manifest.drift:
        return ()
    from edgeml.telemetry.features import input_features

    return input_features(manifest.inputs)


def _first_usable(
    bundle: Bundle, choices: Sequence[Choice], texts: Mapping[str, str]
) -> tuple[Choice, Session]:
    """Load the best choice; if its accelerator cannot be used, and it has no source, the best for the CPU."""
    from edgeml import artifact_cache

    chosen, driver = _first_loadable(choices)
    one = chosen.variant
    file = artifact_cache.artifact(bundle, one)
    source = None if one.fallback is None else file.parents[one.files[0].path.count("/")] / one.fallback
    name = f"{bundle.manifest.name}, {one.name}"
    try:
        return chosen, _session(name, driver, file, source, options_here(one) | dict(texts))
    except AcceleratorError as error:
        others = [other for other in choices if other.variant.needs.accelerator is None]
        if not others:
            raise
        text = f"{name} gives way to {others[0].variant.name}, on the CPU: {error}"
    warnings.warn(text, FallbackWarning, stacklevel=5)
    return _first_usable(bundle, others, texts)


def _first_loadable(choices: Sequence[Choice]) -> tuple[Choice, Runtime]:
    """Import the engine of the first choice whose engine can be imported."""
    for choice in choices[:-1]:
        with suppress(EngineMissingError):
            return choice, plugins.runtime(choice.variant.runtime)
    return choices[-1], plugins.runtime(choices[-1].variant.runtime)


def _labels(bundle: Bundle, path: str) -> tuple[str, ...]:
    try:
        return tuple(bundle.read(path).decode().splitlines())
    except UnicodeDecodeError as error:
        raise BundleError(f"{bundle.path}: {path} is not UTF-8 text") from error


def _spec(manifest: Manifest, variant: Variant, session: Session, labels: tuple[str, ...]) -> ModelSpec:
    for side, ours, theirs in (
        ("input", manifest.inputs, session.inputs),
        ("output", manifest.outputs, session.outputs),
    ):
        if len(ours) != len(theirs):
            raise BundleError(
                f"{manifest.name}: the manifest has {len(ours)} {side}s, variant {variant.name} has "
                f"{len(theirs)}; make the bundle again"
            )
    for said, is_so in (
        *zip(_in_order(manifest.inputs, session.inputs), session.inputs, strict=True),
        *zip(_in_order(manifest.outputs, session.outputs), session.outputs, strict=True),
        *zip(variant.inputs, session.inputs, strict=False),
        *zip(variant.outputs, session.outputs, strict=False),
    ):
        if not _may_be_same(said.shape, is_so.shape):
            raise BundleError(
                f"{manifest.name}: the manifest says {said}, variant {variant.name} has {is_so}; "
                "the manifest was changed, or belongs to another model: make the bundle again"
            )
    return ModelSpec(
        _in_order(manifest.inputs, session.inputs),
        _in_order(manifest.outputs, session.outputs),
        manifest.preprocess,
        manifest.postprocess,
        labels,
    )


def _may_be_same(said: Shape, is_so: Shape) -> bool:
    return len(said) == len(is_so) and all(
        None in {one, other} or one == other for one, other in zip(said, is_so, strict=True)
    )


def _in_order(ours: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Give the bundle's tensors in the session's order: by name, or by place where a variant renamed them."""
    by_name = {spec.name: spec for spec in ours}
    if all(spec.name in by_name for spec in theirs):
        return tuple(by_name[spec.name] for spec in theirs)
    return ours
