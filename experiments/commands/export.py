"""`supernest export`."""

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.options import plugin_option, stage_options
from experiments.commands.stages import run_stages
from experiments.user_input.paths import UserPath

if TYPE_CHECKING:
    from experiments.records import ConvertedNetwork


@click.command()
@stage_options
@plugin_option
@click.option(
    "--budget", metavar="LIMITS", help="Budget to export the best subnet for, such as 'macs<=40%,latency_ms<=3'."
)
@click.option(
    "--refine",
    type=click.IntRange(min=1),
    metavar="N",
    help="Evaluate up to N more subnets for the budget before choosing.",
)
@click.option(
    "--device", type=UserPath(), help="Device file that predicts the latency and memory which the budget limits."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Batch size that --device's latency and memory refer to.  [default: the run's]",
)
@click.option(
    "--min-tau", type=click.FloatRange(-1, 1), metavar="TAU",
    help="Least Kendall's tau of a device file's predictions.  [default: the run's device.min_tau, or 0.7]",
)  # fmt: skip
@click.option("--show", is_flag=True, help="Print which subnet is best for the budget, and export nothing.")
@click.option(
    "--format", "form", type=click.Choice(["standalone", "transformers", "onnx", "pytorch", "tflite", "nested"]),
    default="standalone", show_default=True,
    help="Format of the exports: standalone, or a conversion of exported networks to transformers (language and "
    "translation models), onnx (needs the extra onnx), pytorch (vision transformers and MobileNets; extra pytorch), "
    "tflite (the same networks; extra litert) or nested (residual blocks, of which any share can be loaded).",
)  # fmt: skip
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Batch size of an ONNX or LiteRT file.  [default: any; LiteRT: 1]",
)
@click.option(
    "--bits", type=click.IntRange(1, 24), metavar="N",
    help="Number of residual blocks of each weight of a nested export. A block takes at most 1.25 bits a weight where "
    "both sides of the matrix are 128 or more, 2 at 32 by 32, and 3 at 16 by 16.  [default: 8]",
)  # fmt: skip
@click.option("--opset", type=click.Choice(["20", "23"]), help="Version of ONNX's set of operators.  [default: 20]")
@click.option(
    "--any-size", is_flag=True, help="Let the ONNX file take pictures of any size: it crops and resizes them."
)
@click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="Quantise an ONNX file: products in eight-bit integers, calibrated on training data.",
)
@click.option(
    "--max-loss", type=click.FloatRange(min=0), metavar="POINTS",
    help="Most points of validation accuracy (or percent of an error) that --quantize may lose.  [default: 1]",
)  # fmt: skip
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    metavar="NAME",
    help="Exported subnet to convert (repeatable).  [default: all]",
)
@click.option(
    "--model-type", metavar="TYPE", help="Model type of the transformers directory.  [default: the imported one]"
)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the weights in the transformers directory.  [default: as imported]",
)  # fmt: skip
def export(
    config: Path, budget: str | None, refine: int | None, device: Path | None, batch_size: int | None,
    min_tau: float | None, show: bool,
    form: str, batch: int | None, bits: int | None, opset: str | None, any_size: bool, quantize: str | None,
    max_loss: float | None,
    subnets: Sequence[str], model_type: str | None, dtype: str | None, **options: Any,
) -> None:  # fmt: skip
    """Export the best subnets of a finished search; train and search nothing.

    CONFIG is an experiment file or the run directory. With --budget, the best evaluated subnet for another budget is
    printed at once, and then exported. With --format, exported networks are converted and written to a directory of
    the run, such as RUN/onnx; transformers also gets their tokenizer.
    """
    from search_spaces.errors import UserError

    run = options.pop("out")
    if config.is_dir():
        if run is not None and os.path.realpath(run) != os.path.realpath(config):
            raise UserError(f"--out: {run} is not the run directory {config}. Leave it out.")
        run, config = config, config / "config.yaml"
    elif (budget is not None or form != "standalone") and not config.exists():
        raise UserError(f"{config}: there is no such run. Give the directory that supernest run wrote.")
    if form != "standalone" and (run is None or budget is not None):
        raise UserError(f"--format {form}: give the run directory, and no --budget: supernest export RUN ...")
    if form != "onnx" and (opset or any_size or quantize):
        raise UserError("--opset, --any-size, --quantize: go with --format onnx only. Add it.")
    if form not in ("onnx", "tflite") and batch:
        raise UserError("--batch: goes with --format onnx or tflite only. Add one of them.")
    if max_loss is not None and not quantize:
        raise UserError("--max-loss: goes with --quantize int8 only. Add it.")
    if form not in ("standalone", "transformers") and (model_type or dtype):
        raise UserError("--model-type, --dtype: go with --format transformers only. Leave them out.")
    if bits is not None and form != "nested":
        raise UserError("--bits: goes with --format nested only. Add it.")
    if form == "nested":
        assert run is not None
        _export_nested(run, subnets, bits, options["as_json"])
        return
    if form in ("pytorch", "tflite"):
        assert run is not None
        _export_module(run, form, subnets, batch, options["as_json"])
        return
    if form == "onnx":
        assert run is not None
        _export_onnx(run, subnets, batch, int(opset or 20), any_size, quantize, max_loss, options["as_json"])
        return
    if form == "transformers":
        assert run is not None
        _export_for_transformers(run, subnets, model_type, dtype, options["as_json"])
        return
    if subnets:
        raise UserError("--subnet: goes with another --format than standalone only. Add one, such as onnx.")
    if model_type or dtype:
        raise UserError("--model-type, --dtype: go with --format transformers only. Add it.")
    if budget is not None:
        if run is None:
            raise UserError("--budget: of which run? Give the run directory: supernest export RUN --budget ...")
        _export_for(run, budget, refine, device, batch_size, min_tau, show, **options)
        return
    budget_only = {"--refine": refine, "--device": device, "--batch-size": batch_size, "--min-tau": min_tau}
    for name, given in {**budget_only, "--show": show or None}.items():
        if given is not None:
            raise UserError(f"{name}: goes with --budget only. Give one, such as --budget 'macs<=40%'.")
    run_stages(config, ("export",), out=run, **options)


def _export_onnx(
    run: Path, subnets: Sequence[str], batch: int | None, opset: int, any_size: bool, quantize: str | None,
    max_loss: float | None, as_json: bool,
) -> None:  # fmt: skip
    from experiments.exporting.to_onnx import check_onnx_installed, export_onnx

    check_onnx_installed()
    from supernet.onnx.network import Settings

    quantization = None
    if quantize:
        from experiments.exporting.quantization import Quantization

        quantization = Quantization() if max_loss is None else Quantization(max_loss)
    found = export_onnx(run, subnets, Settings(batch, opset, any_size), quantization)
    click.echo(json.dumps([row.as_json() for row in found]) if as_json else "\n".join(map(_line, found)))


def _export_nested(run: Path, subnets: Sequence[str], bits: int | None, as_json: bool) -> None:
    from experiments.exporting.to_nested import BITS, export_nested

    found = export_nested(run, subnets, bits or BITS)
    if as_json:
        click.echo(json.dumps([network.as_json() for network in found]))
        return
    for network in found:
        report = network.report
        ((shown, whole),) = report["float32"].items()
        click.echo(
            f"{network.directory}: float32 {report['float32_bytes']:,} bytes, validation {shown} {_or_failed(whole)}"
        )
        for size in report["sizes"]:
            click.echo(f"  {size['bytes']:,} bytes ({size['levels']} blocks a weight): {_or_failed(size[shown])}")


def _or_failed(figure: float | None) -> str:
    return "has failed" if figure is None else format(figure, ".4f")


def _export_module(run: Path, form: str, subnets: Sequence[str], batch: int | None, as_json: bool) -> None:
    if form == "pytorch":
        from experiments.exporting.to_pytorch import export_pytorch

        found = export_pytorch(run, subnets)
    else:
        from experiments.exporting.to_tflite import export_tflite

        found = export_tflite(run, subnets, batch or 1)
    click.echo(json.dumps([row.as_json() for row in found]) if as_json else "\n".join(map(_line, found)))


def _line(row: "ConvertedNetwork") -> str:
    latency = "".join(f"; {name} latency {latency:.3f} ms" for name, latency in row.latencies.items())
    report = row.report
    if "quantization" not in report:
        return f"{row.subnet}: parity {report['parity_error']:.1e}, {row.directory}{latency}"
    figures = report["quantization"]["validation"]
    name = next(iter(figures["int8"]))
    return (
        f"{row.subnet}: outputs in int8 differ by {report['int8_difference']:.1e}, {row.directory}; validation "
        f"{name} {figures['float32'][name]:.4f} in float, {figures['int8'][name]:.4f} in int8{latency}"
    )


def _export_for_transformers(
    run: Path, subnets: Sequence[str], model_type: str | None, dtype: str | None, as_json: bool
) -> None:
    from experiments.exporting.to_transformers import export_for_transformers

    found = export_for_transformers(run, subnets, model_type, dtype)
    lines = [f"{row['subnet']}: {row['model_type']}, {row['directory']}" for row in found]
    click.echo(json.dumps(found) if as_json else "\n".join(lines))


def _export_for(
    run: Path, text: str, refine: int | None, device: Path | None, batch_size: int | None, min_tau: float | None,
    show: bool, overrides: Sequence[str], as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Prints the best subnet for a new budget and, unless `show` is set, exports it."""
    from experiments.searching import new_budget as answers
    from search_spaces.errors import UserError

    if overrides and show and not refine:
        raise UserError("--set: an answer from what was evaluated depends on no setting. Leave it out.")
    read = partial(answers.open_finished, run, device, batch_size, min_tau)
    finished = read()
    budget, resolved = answers.parse_budget(text, finished)
    found = answers.answer(finished, budget, resolved)
    if not refine:
        if as_json and (show or found.best is None):
            click.echo(json.dumps(found.as_json()))
        text = "\n".join(answers.report_lines(found, run))
        if not as_json:
            click.echo(text)
        sys.stdout.flush()
        if show:
            return
    from experiments.objective import OBJECTIVES
    from experiments.pipeline.refine_budget import deliver

    found = deliver(run, overrides, read, budget, resolved, refine, show, quiet)
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    if refine:
        click.echo("\n".join(answers.report_lines(found, run)))
    if found.subnet is not None:
        objective = OBJECTIVES[found.objective]
        for name, latency in found.subnet.latencies.items():
            click.echo(f"{name} latency {latency:.3f} ms")
        click.echo(f"test {objective.shown} {objective.of_figures(found.subnet.test)}\n{found.subnet.directory}")
