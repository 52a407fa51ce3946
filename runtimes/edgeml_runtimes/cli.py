"""``edgeml bench`` and ``edgeml run``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml import completion
from edgeml.commands.json_output import json_option, print_json
from edgeml.commands.threads import thread_counts
from edgeml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXISTING = click.Path(exists=True, path_type=Path)
on_option = click.option(
    "--on",
    "url",
    metavar="URL",
    help="On this machine: ssh://user@host, serial:///dev/ttyUSB0, emulator:BOARD.",
)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=EXISTING)
@click.option("--variant", "variants", multiple=True, help="Of a bundle, measure this variant only (repeat).")
@click.option(
    "--runtime",
    shell_complete=completion.runtimes,
    help="Runtime to use; by default the one that reads the file's format.",
)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Engine option (repeat).")
@click.option(
    "--threads", metavar="N,N", help="Engine threads: latency with the first, throughput with each."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=0.5, show_default=True, help="Time to run for."
)
@click.option("--runs", type=click.IntRange(min=1), help="Run so many times instead.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="INPUT=N,N", help="Size of an input with free sides."
)
@click.option("--profile", is_flag=True, help="Also time every operator.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds after which a measurement is killed.",
)
@on_option
@json_option
def bench(
    models: Sequence[Path],
    variants: Sequence[str],
    runtime: str | None,
    options: Sequence[str],
    threads: str | None,
    seconds: float,
    runs: int | None,
    shapes: Sequence[str],
    profile: bool,
    timeout_s: float,
    url: str | None,
    as_json: bool,
) -> None:
    """Measure model files, or all variants of a bundle.

    Each is measured in a fresh process: latency, throughput, load time, peak memory. With --on, on
    another machine that has edgeml.

    \b
    Examples:
      edgeml bench model.tflite
      edgeml bench model.tflite model.onnx --threads 1,2
      edgeml bench digits-1.edgeml --json
      edgeml bench model.onnx --profile --option graph_optimization=basic
      edgeml bench digits-1.edgeml --on ssh://pi@raspberrypi.local
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_runtimes.benchmark import Job, measure, result_to_json
    from edgeml_runtimes.jobs import check_options, jobs_of
    from edgeml_runtimes.tables import measuring, print_results

    common = Job(
        artifact="",
        runtime=runtime or "",
        options=pairs(options, "--option"),
        threads=thread_counts(threads) if threads else (),
        seconds=seconds,
        runs=runs,
        shapes={name: _sides(name, text) for name, text in pairs(shapes, "--shape").items()},
        profile=profile,
        timeout_s=timeout_s,
    )
    if url is not None:
        from edgeml.remote import remote_edgeml
        from edgeml.terminal import showing
        from edgeml_runtimes.remote import bench_on

        with showing() as show, remote_edgeml(url, show) as remote:
            results = bench_on(remote, models, common, variants, show)
    else:
        jobs = [job for model in models for job in jobs_of(model, common, variants)]
        check_options({job.runtime for job in jobs}, common.options)
        results = [measure(job) for job in measuring(jobs)]
    if as_json:
        print_json({"results": [result_to_json(result) for result in results]})
    else:
        print_results(results)
    if not any(result.measurement for result in results):
        click.get_current_context().exit(1)


@click.command()
@click.argument("model")
@click.argument("data", metavar="INPUT")
@click.option("--variant", help="Of a bundle, use this variant.")
@click.option(
    "--runtime",
    shell_complete=completion.runtimes,
    help="Runtime to use; by default the one that reads the file's format.",
)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Engine option (repeat).")
@click.option("--config", type=EXISTING, help="TOML file that declares pre- and post-processing.")
@click.option(
    "--preprocess", multiple=True, metavar="KEY=VALUE", help="Pre-processing, over the file's (repeat)."
)
@click.option(
    "--postprocess", multiple=True, metavar="KEY=VALUE", help="Post-processing, the same way (repeat)."
)
@click.option("--raw", is_flag=True, help="Arrays as the model takes and gives them: no processing.")
@click.option("--limit", type=click.IntRange(min=1), help="Take so many samples, spread over the input.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write results here: .jsonl (resumes where it was interrupted) or .npz.",
)
@on_option
@json_option
def run(
    model: str,
    data: str,
    variant: str | None,
    runtime: str | None,
    options: Sequence[str],
    config: Path | None,
    preprocess: Sequence[str],
    postprocess: Sequence[str],
    raw: bool,
    limit: int | None,
    output: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Run a model file, a bundle or an installed model on samples.

    INPUT is a .npy, .npz or .csv file, an image, or a folder of them. With --on, on another machine
    that has edgeml; an installed model is one of that machine.

    \b
    Examples:
      edgeml run digits-1.edgeml samples.npz
      edgeml run digits-1.edgeml photos/ --output results.jsonl
      edgeml run model.onnx cat.png --preprocess "resize=256 crop=224 mean=127.5 std=127.5"
      edgeml run digits samples.npz --on ssh://pi@raspberrypi.local
    """  # noqa: D301 - as above
    from edgeml_runtimes.results import Sink
    from edgeml_runtimes.running import opened, predictions
    from edgeml_runtimes.tables import following

    if raw and (config or preprocess or postprocess):
        raise UsageError(
            "--raw leaves out what --config, --preprocess and --postprocess declare: give either"
        )
    if url is not None:
        words = _run_words(variant, runtime, options, preprocess, postprocess, limit)
        words += [word for word, given in (("--raw", raw), ("--json", as_json)) if given]
        _run_on(url, model, data, words, config, output, as_json=as_json)
        return
    with opened(
        model,
        variant=variant,
        runtime=runtime,
        options=pairs(options, "--option"),
        config=config,
        preprocess=preprocess,
        postprocess=postprocess,
        raw=raw,
    ) as chosen:
        dataset = chosen.data(data, limit)
        with Sink(output, chosen, dataset, as_json=as_json) as sink:
            for name, prediction in following(
                predictions(chosen, dataset, skip=sink.done), dataset, sink.done
            ):
                sink.write(name, prediction)


def _run_words(
    variant: str | None,
    runtime: str | None,
    options: Sequence[str],
    preprocess: Sequence[str],
    postprocess: Sequence[str],
    limit: int | None,
) -> list[str]:
    """Give the options of ``edgeml run`` that have a value, to be said on another machine."""
    given = [("--variant", variant), ("--runtime", runtime), ("--limit", limit)]
    given += [("--option", text) for text in options]
    given += [("--preprocess", text) for text in preprocess]
    given += [("--postprocess", text) for text in postprocess]
    return [str(word) for option, value in given if value is not None for word in (option, value)]


def _run_on(
    url: str,
    model: str,
    data: str,
    words: Sequence[str],
    config: Path | None,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    import json

    from edgeml.remote import remote_edgeml
    from edgeml.terminal import showing
    from edgeml_runtimes.remote import run_on

    if output is not None and output.suffix not in {".jsonl", ".npz"}:
        raise UsageError(f"--output {output}: name it *.jsonl or *.npz")
    with showing() as show, remote_edgeml(url, show) as remote:
        done = run_on(remote, model, data, words, config=config, output=output, show=show)
        said = remote.named(done.stdout.decode(errors="replace"))
    if as_json:
        answer = json.loads(said)
        answer["output"] = None if output is None else str(output)
        print_json(answer)
    elif output is not None:
        click.echo(f"results in {output}", err=True)
    else:
        click.echo(said, nl=False)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Split ``key=value`` texts.

    Raises:
        UsageError: one without ``=``.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text!r}: write it as key=value")
        found[key] = value
    return found


def _sides(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise UsageError(f"--shape {name}={text}: give whole numbers, as in {name}=1,224,224,3") from None
