"""OTLP/HTTP metrics of agents that are not ours: gauges, sums, histograms, exponential histograms. Pure.

OTLP has no identity of a report: what is sent again is stored again. Such points are kept apart from
telemetry that is counted exactly once.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.telemetry.store import Point

CONTENT_PROTOBUF: Final = "application/x-protobuf"
CONTENT_JSON: Final = "application/json"
MOST_POINTS: Final = 10_000
"""Of one request."""
_TEXT: Final = 255
_ATTRIBUTES: Final = 4096
"""Characters of a point's attributes as JSON."""
_BUCKETS: Final = 4096
_TEMPORALITY: Final = {1: "delta", 2: "cumulative"}
_NO_VALUE: Final = 1
"""Flag: there was nothing to measure."""


def read_points(body: bytes, content_type: str, device_id: str, now: float) -> tuple[list[Point], int]:
    """Read a request; give its points, and how many are of a kind that is not stored (summaries).

    Args:
        body: inflated.
        content_type: the header.
        device_id: whose token it was; empty: not a device's.
        now: Unix seconds, for points that have no time.

    Raises:
        RefusalError: 400: it cannot be read; 413: too many points; 415: of another kind.
    """
    request = ExportMetricsServiceRequest()
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == CONTENT_PROTOBUF:
            request.ParseFromString(body)
        elif kind == CONTENT_JSON:
            json_format.Parse(body, request, ignore_unknown_fields=True, max_recursion_depth=32)
        else:
            raise RefusalError(415, f"OTLP comes as {CONTENT_PROTOBUF} or {CONTENT_JSON}")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise RefusalError(400, f"this is no OTLP request for metrics: {error}") from error
    found: list[Point] = []
    left_out = 0
    for metric, resource in _metrics(request):
        shape = metric.WhichOneof("data")
        if shape not in {"gauge", "sum", "histogram", "exponential_histogram"}:
            left_out += len(metric.summary.data_points)
            continue
        data = getattr(metric, shape)
        measured = (one for one in data.data_points if not one.flags & _NO_VALUE)
        found += [_point(metric, shape, data, one, resource, device_id, now) for one in measured]
        if len(found) > MOST_POINTS:
            raise RefusalError(413, f"a request may have {MOST_POINTS} points; send fewer at a time")
    return found, left_out


def _metrics(request: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    for resources in request.resource_metrics:
        resource = {f"resource.{key}": value for key, value in _attributes(resources.resource.attributes)}
        for scope in resources.scope_metrics:
            for metric in scope.metrics:
                yield metric, resource


def _point(
    metric: Any, shape: str, data: Any, one: Any, resource: Mapping[str, Any], device_id: str, now: float
) -> Point:
    attributes = json.dumps({**resource, **dict(_attributes(one.attributes))}, sort_keys=True)
    if len(attributes) > _ATTRIBUTES:
        raise RefusalError(400, f"{metric.name:.80}: more than {_ATTRIBUTES} characters of attributes")
    at = one.time_unix_nano / 1e9
    value, buckets = _measured(metric.name, shape, one)
    return Point(
        at if 0 < at <= now + 300 else now,
        device_id,
        _text(metric.name),
        _text(metric.unit),
        shape,
        _TEMPORALITY.get(getattr(data, "aggregation_temporality", 0), ""),
        attributes.replace("\\u0000", "\N{REPLACEMENT CHARACTER}"),
        value,
        buckets,
    )


def _measured(name: str, shape: str, one: Any) -> tuple[float, str]:
    """Give the value (of a histogram: its sum), and a histogram's buckets as JSON."""
    if shape in {"gauge", "sum"}:
        number = one.as_int if one.WhichOneof("value") == "as_int" else one.as_double
        return _finite(name, number), ""
    fields: dict[str, Any] = {"count": one.count, "min": None, "max": None}
    for end in ("min", "max"):
        if one.HasField(end):
            fields[end] = _finite(name, getattr(one, end))
    if shape == "histogram":
        fields |= {"bounds": list(one.explicit_bounds), "counts": list(one.bucket_counts)}
    else:
        fields |= {"scale": one.scale, "zero": one.zero_count}
        for side in ("positive", "negative"):
            buckets = getattr(one, side)
            fields[side] = {"offset": buckets.offset, "counts": list(buckets.bucket_counts)}
    text = json.dumps(fields, separators=(",", ":"))
    if text.count(",") > _BUCKETS or "NaN" in text or "Infinity" in text:
        raise RefusalError(400, f"{name:.80}: more than {_BUCKETS} buckets, or bounds that are no numbers")
    return _finite(name, one.sum), text


def _finite(name: str, number: float) -> float:
    if not math.isfinite(number):
        raise RefusalError(400, f"{name:.80}: not a number")
    return float(number)


def _text(text: str) -> str:
    return text[:_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _attributes(pairs: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for pair in pairs:
        yield pair.key, _value(pair.value)


def _value(value: Any) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(one) for one in value.array_value.values]
        case "kvlist_value":
            return dict(_attributes(value.kvlist_value.values))
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case None:
            return None
        case name:
            return getattr(value, name)


def answer(content_type: str, left_out: int) -> tuple[bytes, str]:
    """Give the answer's body and content type: in the encoding of the request, as OTLP wants it."""
    response = ExportMetricsServiceResponse()
    if left_out:
        response.partial_success.rejected_data_points = left_out
        response.partial_success.error_message = "summaries are not stored"
    if content_type.partition(";")[0].strip().lower() == CONTENT_JSON:
        return json_format.MessageToJson(response).encode(), CONTENT_JSON
    return response.SerializeToString(), CONTENT_PROTOBUF
