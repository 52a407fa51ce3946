"""Every error edgeml raises.

EdgemlError
├── UsageError                  wrong call: unknown option, target, name (exit code 2)
│   └── SettingsError           edgeml.toml or EDGEML_* holds something wrong
├── GateError                   the work was done, a gate was not met (exit code 3)
├── EngineError                 an engine or framework could not do its part
│   ├── EngineMissingError      not installed
│   ├── EngineVersionError      installed, but of a version that does not serve
│   └── InferenceError          the engine failed while it ran a model
│       └── AcceleratorError    what the model was compiled for is not there, not usable, or failed
├── InputError                  what a caller passed to a model does not fit its signature
│   ├── InputNameError
│   ├── InputShapeError
│   └── InputDtypeError
├── ModelFileError              a model file is damaged, foreign or not what its name says
│   └── UnsafeFileError         a file that tries to leave its folder, run code or exhaust memory
├── BundleError                 a bundle is damaged, incomplete or cannot be written
├── DataError                   calibration or evaluation data that cannot be used
├── PlanError                   no conversion path, or one that lacks something
├── ConversionError             a conversion step failed
│   ├── ParityError             a step ran, and its result differs from its source
│   └── QuantizationError       a quantizer failed, or quantized nothing
│       └── AlreadyQuantizedError
├── WorkerError                 an isolated framework failed
│   ├── WorkerMissingError      not installed
│   └── WorkerTimeoutError
├── MeasureError                a benchmark could not be taken
├── TransportError              a device could not be reached, or a command on it failed
└── FleetError                  releases, devices and rollouts
    ├── MessageError            a document of the protocol that cannot be read
    ├── ServerError             the server cannot be reached, or refuses
    ├── TrustError              signed metadata that is forged, expired, older than known, or of another key
    └── InstallError            a release could not be installed; the device runs what it ran before

A message says what failed, on which object, and what to do next. Libraries raise; only the
command line turns an error into an exit code.
"""

from __future__ import annotations


class EdgemlError(Exception):
    """The root: catch this to catch whatever edgeml raises on purpose."""

    exit_code = 1


class UsageError(EdgemlError):
    """The call itself is wrong: an unknown option, target, runtime or name."""

    exit_code = 2


class SettingsError(UsageError):
    """A settings file or an ``EDGEML_*`` variable holds something wrong."""


class GateError(EdgemlError):
    """The work was done, and its result does not hold a gate that was asked for."""

    exit_code = 3


class EngineError(EdgemlError):
    """An engine or framework could not do its part."""


class EngineMissingError(EngineError):
    """The engine is not installed."""


class EngineVersionError(EngineError):
    """The engine is installed in a version that does not serve."""


class InferenceError(EngineError):
    """The engine failed while it loaded or ran a sound model."""


class AcceleratorError(InferenceError):
    """The accelerator that a model was compiled for is missing, cannot be used, or failed."""


class InputError(EdgemlError):
    """What a caller passed does not fit the model's signature."""


class InputNameError(InputError):
    """An input is missing, or a name is not one of the model's."""


class InputShapeError(InputError):
    """An input has another shape than the model takes."""


class InputDtypeError(InputError):
    """An input has another dtype than the model takes."""


class ModelFileError(EdgemlError):
    """A model file is damaged, foreign, or not what its name says."""


class UnsafeFileError(ModelFileError):
    """A file that tries to leave its folder, to run code, or to exhaust memory."""


class BundleError(EdgemlError):
    """A bundle is damaged or incomplete, or cannot be written."""


class DataError(EdgemlError):
    """Calibration or evaluation data that cannot be used."""


class PlanError(EdgemlError):
    """There is no conversion path, or the path lacks something."""


class ConversionError(EdgemlError):
    """A conversion step failed."""


class ParityError(ConversionError):
    """A conversion step ran, and its result differs from its source."""


class QuantizationError(ConversionError):
    """A quantizer failed, or it ran and quantized nothing."""


class NothingToQuantizeError(QuantizationError):
    """The model has nothing that the runtime could hold in this scheme, or gain by."""


class AlreadyQuantizedError(QuantizationError):
    """The model is quantized already; the float model is needed."""


class WorkerError(EdgemlError):
    """An isolated framework failed; the message holds the end of its log."""


class WorkerMissingError(WorkerError):
    """The worker is not installed."""


class WorkerTimeoutError(WorkerError):
    """The worker did not finish in its time and was killed."""


class MeasureError(EdgemlError):
    """A benchmark could not be taken."""


class TransportError(EdgemlError):
    """A device could not be reached, or a command on it could not be run."""


class FleetError(EdgemlError):
    """Something about releases, devices or rollouts is wrong."""


class MessageError(FleetError):
    """A document of the protocol cannot be read: a field is missing or of a wrong type."""


class ServerError(FleetError):
    """The server cannot be reached, or refuses."""


class TrustError(FleetError):
    """Signed metadata cannot be trusted: forged, expired, older than known, or of the wrong key."""


class InstallError(FleetError):
    """A release could not be installed. The device runs what it ran before."""
