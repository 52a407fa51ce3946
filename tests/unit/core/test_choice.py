"""Which variant a machine runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml import targets as shipped
from edgeml.choice import choose, fitting, options_here
from edgeml.engines import engine, version_fits
from edgeml.errors import BundleError, EngineMissingError, EngineVersionError, UsageError
from edgeml.manifest import FileEntry, Latency, Manifest, Measured, Needs, Variant
from edgeml.targets import target

VNNI = target("x86-64-vnni")
PI = target("raspberry-pi-4")


def variant(name: str, *targets: str, p50: float | None = None, needs: Needs = Needs()) -> Variant:  # noqa: B008 - frozen
    runtime = name.partition("-")[0]
    measured = Measured(latency_ms=None if p50 is None else Latency(p50, p50, p50))
    return Variant(
        name,
        runtime,  # type: ignore[arg-type] # a test's own name
        "int8_static",
        (FileEntry(f"variants/{name}/model", 1, "0" * 64),),
        targets,
        measured=measured,
        needs=needs,
    )


def manifest(*variants: Variant) -> Manifest:
    return Manifest("kws", 1, (), (), variants, ())


def usable(_: Variant) -> None:
    return None


def names(*variants: Variant, machine: object = VNNI) -> list[str]:
    assert machine in {VNNI, PI}
    return [choice.variant.name for choice in choose(manifest(*variants), machine, usable)]  # type: ignore[arg-type]


def test_made_for_this_class_comes_before_faster_ones_for_a_lesser_class() -> None:
    found = names(
        variant("litert-a", "raspberry-pi-4", p50=0.1),
        variant("litert-b", "x86-64-v2", p50=0.2),
        variant("litert-c", "x86-64-v3", p50=0.3),
        variant("litert-d", "x86-64-vnni", p50=0.4),
    )
    assert found == ["litert-d", "litert-c", "litert-b", "litert-a"]


def test_another_machine_gets_what_its_own_engines_run() -> None:
    one, other = variant("litert-a", "raspberry-pi-4"), variant("onnxruntime-b", "raspberry-pi-4")
    both = manifest(replace(one, runtime_version=">=2.1,<3"), other)
    assert [c.variant.name for c in fitting(both, PI, {"litert": "2.1.0", "onnxruntime": "1.20"})] == [
        "litert-a",
        "onnxruntime-b",
    ]
    assert [c.variant.name for c in fitting(both, PI, {"litert": "3.0", "onnxruntime": "1.20"})] == [
        "onnxruntime-b"
    ]
    with pytest.raises(EngineVersionError, match=r"litert-a needs litert >=2\.1,<3, 3\.0 is there"):
        fitting(manifest(both.variants[0]), PI, {"litert": "3.0"})
    with pytest.raises(EngineMissingError, match="litert is not installed"):
        fitting(both, PI, {})


def test_among_equals_the_lowest_measured_latency_wins_then_the_manifests_order() -> None:
    found = names(
        variant("litert-a", "x86-64-vnni"),
        variant("openvino-b", "x86-64-vnni", p50=2.0),
        variant("onnxruntime-c", "x86-64-vnni", p50=1.0),
        variant("litert-d", "x86-64-vnni"),
    )
    assert found == ["onnxruntime-c", "openvino-b", "litert-a", "litert-d"]


def test_a_class_of_machine_with_more_features_is_no_match_and_warns() -> None:
    amx = variant("openvino-a", "x86-64-amx", needs=Needs(cpu_features=("amx_int8",)))
    choice = choose(manifest(amx), VNNI, usable)[0]
    assert choice.warning is not None
    assert "nothing in the bundle was made for this class of machine (x86-64-vnni)" in choice.warning
    assert "this CPU lacks amx_int8" in choice.warning


def test_what_was_made_for_here_or_for_less_does_not_warn() -> None:
    for name in ("x86-64-vnni", "x86-64-v2"):
        assert choose(manifest(variant("litert-a", name)), VNNI, usable)[0].warning is None


def test_needed_cpu_features_count_even_if_the_target_fits() -> None:
    needing = variant("litert-a", "x86-64-vnni", needs=Needs(cpu_features=("avx512f",)))
    assert names(needing, variant("litert-b", "x86-64-v2")) == ["litert-b", "litert-a"]


def test_a_target_in_a_bundle_is_a_name_and_leads_to_no_file(tmp_path: Path) -> None:
    board = tmp_path / "x86-64-board.toml"
    shutil.copy(Path(shipped.__file__).parent / "x86-64-v2.toml", board)
    assert target(str(board)).runs_on(VNNI)
    for name in (str(board), "host", "x" * 5000, "\0"):
        assert choose(manifest(variant("litert-a", name)), VNNI, usable)[0].warning is not None


def test_a_target_of_somebody_elses_does_not_stop_the_choice() -> None:
    assert names(variant("litert-a", "our-own-board"), variant("litert-b", "x86-64-vnni")) == [
        "litert-b",
        "litert-a",
    ]


def test_what_suits_no_target_comes_last_however_fast() -> None:
    found = names(
        variant("litert-a", p50=0.01), variant("litert-b", "raspberry-pi-4"), variant("litert-c", "x86-64-v2")
    )
    assert found == ["litert-c", "litert-b", "litert-a"]
    assert "made for no target" in str(choose(manifest(variant("litert-a")), VNNI, usable)[0].warning)


def test_without_latencies_the_conversions_choice_for_this_class_counts() -> None:
    first, second = variant("litert-a", "x86-64-vnni"), variant("litert-b", "x86-64-vnni")
    assert names(first, replace(second, extra={"chosen_for": ["x86-64-vnni"]})) == ["litert-b", "litert-a"]
    assert names(first, replace(second, extra={"chosen_for": 3})) == ["litert-a", "litert-b"]


def test_what_the_conversion_chose_comes_before_what_is_a_little_faster() -> None:
    faster = variant("litert-a", "x86-64-vnni", p50=0.98)
    chosen = replace(variant("litert-b", "x86-64-vnni", p50=1.0), extra={"chosen_for": ["x86-64-vnni"]})
    assert names(faster, chosen) == ["litert-b", "litert-a"]


def test_a_machine_of_no_named_class_takes_what_was_chosen_for_the_nearest_one() -> None:
    both = ("x86-64-v2", "x86-64-v3")
    first = replace(variant("litert-a", *both, p50=1.0), extra={"chosen_for": ["x86-64-v2"]})
    second = replace(variant("litert-b", *both, p50=2.0), extra={"chosen_for": ["x86-64-v3"]})
    assert names(first, second) == ["litert-b", "litert-a"]


def test_threads_of_a_bundle_are_no_more_than_the_cores_here() -> None:
    cores = os.cpu_count()
    one = replace(variant("onnxruntime-a"), measured=Measured(threads=100_000))
    assert options_here(one) == {"threads": str(cores)}
    assert options_here(replace(one, options={"inter_op_threads": "100000", "threads": "1"})) == {
        "threads": "1",
        "inter_op_threads": str(cores),
    }
    assert options_here(variant("openvino-a")) == {}


def test_an_accelerator_or_memory_that_is_not_here_rules_out() -> None:
    coral = variant("litert-a", "coral-usb", needs=Needs(accelerator="edgetpu"))
    large = variant("litert-b", needs=Needs(memory_bytes=1 << 50))
    with pytest.raises(BundleError, match=r"litert-a needs the accelerator edgetpu; litert-b needs \d+ MiB"):
        choose(manifest(coral, large), PI, usable)
    assert choose(manifest(coral), PI, usable, variant="litert-a")[0].variant == coral


def test_an_accelerator_that_is_here_comes_first_and_a_fall_back_last() -> None:
    accelerated = replace(
        variant("litert-a", "coral-usb", p50=9.0, needs=Needs(accelerator="edgetpu")), fallback="model"
    )
    plain, foreign = variant("litert-b", "raspberry-pi-4", p50=1.0), variant("litert-c", "x86-64-v3")
    coral = replace(PI, accelerators=("edgetpu",))
    bundle = manifest(foreign, plain, accelerated)
    assert [one.variant.name for one in choose(bundle, coral, usable)] == ["litert-a", "litert-b", "litert-c"]
    assert [one.variant.name for one in choose(bundle, PI, usable)] == ["litert-b", "litert-c", "litert-a"]
    assert choose(manifest(accelerated), PI, usable)[0].variant == accelerated


def test_a_missing_engine_is_passed_over_and_named_if_there_is_no_other() -> None:
    def no_litert(one: Variant) -> str | None:
        return "ai-edge-litert is not installed: pip install x" if one.runtime == "litert" else None

    bundle = manifest(variant("litert-a", "x86-64-vnni"), variant("openvino-b", "x86-64-vnni"))
    assert [choice.variant.name for choice in choose(bundle, VNNI, no_litert)] == ["openvino-b"]
    with pytest.raises(EngineMissingError, match="ai-edge-litert is not installed: pip install x"):
        choose(bundle, VNNI, no_litert, runtime="litert")
    with pytest.raises(EngineVersionError, match="needs >=3"):
        choose(bundle, VNNI, lambda _: "openvino is 2, needs >=3", runtime="openvino")


def test_an_unknown_variant_or_runtime_names_those_there_are() -> None:
    bundle = manifest(variant("litert-a", "x86-64-vnni"))
    with pytest.raises(UsageError, match="kws has no variant 'b'; its variants are: litert-a"):
        choose(bundle, VNNI, usable, variant="b")
    with pytest.raises(UsageError, match="no runtime 'openvino'"):
        choose(bundle, VNNI, usable, runtime="openvino")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.3.0", "", True),
        ("2.3.0", ">=2.1", True),
        ("2.10.0", ">=2.9,<3", True),
        ("3.0", "<3", False),
        ("2.3", "==2.3.0", True),
        ("2.3.1", "!=2.3.1", False),
        ("2026.4.1+cpu", ">=2025.2", True),
        ("2.4.0", "~=2.3.1", False),
        ("2.3.5", "~=2.3.1", True),
        ("1.31.1", ">1.31.1", False),
        ("1.0", "<=1", True),
    ],
)
def test_version_ranges(version: str, wanted: str, fits: bool) -> None:
    assert version_fits(version, wanted) is fits


def test_the_engine_of_a_driver_is_read_from_metadata() -> None:
    found = engine("onnxruntime")
    assert found is not None
    assert (found.distribution, found.install) == (
        "onnxruntime",
        "pip install 'edgeml-runtimes[onnxruntime]'",
    )
    assert found.wanted.startswith(">=")
    assert engine("nothing-of-that-name") is None
