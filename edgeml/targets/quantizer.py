"""How a target's CPU wants its integers: signedness, 7 or 8 bits, per channel."""

from __future__ import annotations

from edgeml.converter import QuantizerSettings
from edgeml.targets import Target
from edgeml.words import RuntimeName


def saturates(target: Target) -> bool:
    """Say whether u8×s8 products can overflow their 16-bit sums on the target's CPU.

    x86 before VNNI multiplies by ``pmaddubsw``, which adds two products into 16 bits and clips.
    Published figures of one and the same ONNX file are 5.8 (ResNet50) and 7.3 (MobileNetV2) points of
    top-1 lower on such a CPU. ARM's instructions widen to 32 bits.
    """
    return target.architecture == "x86_64" and not target.cpu_features & {"vnni", "amx_int8"}


def quantizer_settings(target: Target, runtime: RuntimeName) -> QuantizerSettings:
    """Choose how to quantize for a runtime on a target.

    - ``per_channel`` always: one scale for all channels of a convolution leaves MobileNetV2 at 8 %
      top-1, of 89 % in float.
    - activations: TFLite's int8 kernels take s8 only. ONNX takes both; measured on x86 with VNNI, u8
      is 1.7 to 2.3 times as fast as s8 in ONNX Runtime, and OpenVINO runs convolutions of s8
      activations in float. There are no measurements on ARM that would say otherwise.
    - ``reduce_range`` where products can saturate, except for LiteRT, whose kernels widen s8 to 16
      bits before they multiply.
    """
    if runtime == "litert":
        return QuantizerSettings(activations="int8", reduce_range=False, per_channel=True)
    return QuantizerSettings(activations="uint8", reduce_range=saturates(target), per_channel=True)
