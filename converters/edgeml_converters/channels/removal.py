"""Finds the channels that a model can do without, and takes them out.

A channel that is the same for every input goes into the biases of what reads it; one that nothing reads
just goes. Channels that depthwise convolutions, activations, pools and sums hand on belong together: they
go where no layer that reads any of them needs it. Zeros around a picture make a constant none at its borders,
so that a padded convolution gives up a constant only if it is 0. What is left is looked at again until
nothing more can go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.channels.flow import Channelwise, Graph, Layer, Marks, Values, limit, zeros

MULTIPLE: Final = 4
"""ONNX Runtime's quick float kernels need channels in fours: a published model that takes 0.24 ms takes 0.23
with just the channels that it needs, and 0.15 with fours; LiteRT and OpenVINO do not mind."""


LEAST_SHARE: Final = 0.01
"""MobileNetV2 without 8 channels of its first layer, 0.1 % of all, is no quicker that could be measured."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What one layer lost."""

    layer: str
    channels: int
    of: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What was taken out of a graph."""

    layers: tuple[Removed, ...]
    channels: Mapping[str, int]
    """How many are left, by tensor, of those that have fewer."""
    share: float = 0.0
    """What went of all channels that layers make, or of all their weights, whichever is more."""

    @property
    def pays(self) -> bool:
        """Whether enough went for a difference that could be measured."""
        return self.share >= LEAST_SHARE

    @property
    def note(self) -> str:
        """All of it in a sentence."""
        each = ", ".join(f"{one.layer} {one.channels} of {one.of}" for one in self.layers)
        return f"dead channels taken out: {self.summary}: {each}"

    @property
    def summary(self) -> str:
        """How many channels of how many operators."""
        total, of = sum(one.channels for one in self.layers), sum(one.of for one in self.layers)
        operators = "operator" if len(self.layers) == 1 else "operators"
        return f"{total} of {of} channels of {len(self.layers)} {operators}"


class Reader(Protocol):
    """A model of some format."""

    def graph(self) -> Graph:
        """Read its channels."""
        ...

    def write(self, graph: Graph, found: Removal) -> None:
        """Put what is left of them into the model."""
        ...


def taken_out(reader: Reader) -> Removal:
    """Take dead channels out of a model in place; without any it stays as it is."""
    graph = reader.graph()
    found = remove(graph)
    if found.layers:
        reader.write(graph, found)
    return found


def remove(graph: Graph, multiple: int = MULTIPLE) -> Removal:
    """Slice the weights of a graph's nodes in place; without dead channels nothing changes.

    As many dead ones stay as make the number left a multiple.
    """
    before = {layer.makes: layer.made for layer in graph.layers}
    weights = _weights(graph)
    groups = _groups(graph)
    sizes: dict[str, int] = {}
    if not _agrees(graph, groups):
        return Removal((), {})
    with np.errstate(all="ignore"):  # of weights that are no numbers
        while True:
            constants = _constants(graph, groups)
            kept = _kept(graph, groups, constants, multiple)
            fewer = {group: int(marks.sum()) for group, marks in kept.items() if not marks.all()}
            if not fewer:
                break
            sizes |= fewer
            _slice(graph, groups, kept, constants)
    lost = [Removed(one.name, before[one.makes] - one.made, before[one.makes]) for one in graph.layers]
    channels = {tensor: sizes[group] for tensor, group in groups.items() if group in sizes}
    shares = (
        sum(one.channels for one in lost) / max(1, sum(before.values())),
        1.0 - _weights(graph) / max(1, weights),
    )
    return Removal(tuple(one for one in lost if one.channels), channels, max(shares))


def _agrees(graph: Graph, groups: Mapping[str, str]) -> bool:
    """Say whether all layers see the same number of channels in a group."""
    sides = [side for layer in graph.layers for side in _sides(layer)]
    counts = {groups[tensor]: count for tensor, count in sides}
    return all(counts[groups[tensor]] == count for tensor, count in sides)


def _sides(layer: Layer) -> tuple[tuple[str, int], tuple[str, int]]:
    return (layer.takes, layer.taken), (layer.makes, layer.made)


def _weights(graph: Graph) -> int:
    return sum(layer.weights.size for layer in graph.layers)


def _groups(graph: Graph) -> dict[str, str]:
    """Give each tensor the name of its group: those whose channels are in step."""
    parents: dict[str, str] = {}

    def root(tensor: str) -> str:
        parents.setdefault(tensor, tensor)
        while parents[tensor] != tensor:
            tensor = parents[tensor]
        return tensor

    for node in graph.nodes:
        if isinstance(node, Layer):
            root(node.takes), root(node.makes)
            continue
        for tensor in node.takes:
            parents[root(tensor)] = root(node.makes)
    return {tensor: root(tensor) for tensor in list(parents)}


def _kept(
    graph: Graph, groups: Mapping[str, str], constants: Mapping[str, Values], multiple: int
) -> dict[str, Marks]:
    """Mark the channels of each group that something needs; at least one."""
    sides = [side for layer in graph.layers for side in _sides(layer)]
    kept = {groups[tensor]: np.zeros(count, bool) for tensor, count in sides}
    for layer in graph.layers:
        kept[groups[layer.takes]] |= _needed(layer, constants[layer.takes])
    for tensor in graph.locked:
        if groups.get(tensor) in kept:
            kept[groups[tensor]][:] = True
    for marks in kept.values():
        _fill(marks, multiple)
    return kept


def _fill(marks: Marks, multiple: int) -> None:
    """Keep dead channels, the first ones, that make the number a multiple, or all that there are."""
    needed = int(marks.sum())
    wanted = max(1, -(-needed // multiple)) * multiple
    marks[np.flatnonzero(~marks)[: wanted - needed]] = True


def _constants(graph: Graph, groups: Mapping[str, str]) -> dict[str, Values]:
    """Give what each tensor's channels always are."""
    counts = {groups[tensor]: count for layer in graph.layers for tensor, count in _sides(layer)}
    found = {tensor: np.full(counts.get(group, 0), np.nan) for tensor, group in groups.items()}
    for node in graph.nodes:
        if isinstance(node, Layer):
            found[node.makes] = _made_of(node, found[node.takes])
        elif found[node.makes].size:
            found[node.makes] = node.value([found[one] for one in node.takes], node.parameters)
    return found


def _made_of(layer: Layer, taken: Values) -> Values:
    """Give what a layer makes of constants."""
    seen = _seen(layer, taken)
    known = ~(_reads(layer) & np.isnan(seen)).any(axis=1)
    bias = 0.0 if layer.bias is None else layer.bias.reshape(-1).astype(np.float64)
    return layer.activation(np.where(known, _sums(layer, seen) + bias, np.nan))


def _needed(layer: Layer, taken: Values) -> Marks:
    """Mark the channels that a layer cannot do without."""
    seen = _seen(layer, taken)
    can_fold = layer.bias is not None or layer.may_gain_bias
    spared = ~np.isnan(seen) if can_fold else seen == 0.0
    needed: Marks = _reads(layer).any(axis=0) & ~spared
    return needed


def _seen(layer: Layer, taken: Values) -> Values:
    """Give the constants as a layer sees them at every place."""
    return zeros([taken]) if layer.padded else taken


def _reads(layer: Layer) -> Marks:
    """Mark which outputs read which inputs; what is no number is read."""
    silent = np.abs(_outputs_first(layer, layer.weights)) <= limit(layer.weights)
    return np.asarray(~silent.all(axis=tuple(range(2, silent.ndim))), bool)


def _sums(layer: Layer, constants: Values) -> Values:
    """Give what the inputs that are constant add to each output; the others count as 0."""
    known = np.flatnonzero(np.nan_to_num(constants))
    weights = _outputs_first(layer, np.take(layer.weights, known, layer.inputs_axis)).astype(np.float64)
    heard = np.where(np.abs(weights) <= limit(layer.weights), 0.0, weights)
    sums: Values = heard.sum(axis=tuple(range(2, heard.ndim))) @ constants[known]
    return sums


def _outputs_first(layer: Layer, weights: Array) -> Array:
    """Give weights with output channels in the first axis, input channels in the second."""
    return np.moveaxis(weights, (layer.outputs_axis, layer.inputs_axis), (0, 1))


def _slice(
    graph: Graph, groups: Mapping[str, str], kept: Mapping[str, Marks], constants: Mapping[str, Values]
) -> None:
    for node in graph.nodes:
        if isinstance(node, Channelwise):
            marks = kept.get(groups[node.makes])
            for one in node.parameters:
                if marks is not None and one.axis is not None:
                    one.values = np.compress(marks, one.values, axis=one.axis)
            continue
        takes, makes = kept[groups[node.takes]], kept[groups[node.makes]]
        if not takes.all():
            _fold(node, np.where(takes, 0.0, _seen(node, constants[node.takes])))
            node.weights = np.compress(takes, node.weights, node.inputs_axis)
        if not makes.all():
            node.weights = np.compress(makes, node.weights, node.outputs_axis)
            node.bias = None if node.bias is None else node.bias[makes]


def _fold(layer: Layer, going: Values) -> None:
    """Put what the channels that go add to each output into the bias."""
    added = _sums(layer, going)
    if added.any():
        bias = np.zeros(layer.made, np.float32) if layer.bias is None else layer.bias
        layer.bias = (bias.astype(np.float64) + added).astype(np.float32)
