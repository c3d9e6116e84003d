"""Runs in Python: figures, candidates and exported networks of a run directory."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.records import ConvertedNetwork
from search_spaces.errors import UserError
from supernest.subnet import Subnet, load_subnet


class Run:
    """A run directory. It is read anew at each use, so a run that goes on elsewhere can be watched.

    Args:
        path: The run directory.

    Raises:
        UserError: There is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{self.path}: is no run directory. Give the directory of a run, such as runs/digits.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of every stage that was run, as in `summary.json`; empty before the first has ended.

        Raises:
            UserError: The file was changed, or is of another run.
        """
        from experiments.storage.run_files import summary_json

        return summary_json(self.path)

    @property
    def pareto(self) -> Mapping[str, Any]:
        """The search's fronts and the best candidate of each budget, as in `search/pareto.json`.

        Raises:
            UserError: Nothing was searched yet, or the file was changed.
        """
        from search_spaces.sealed_json import read_sealed

        try:
            return read_sealed(self.path / "search" / "pareto.json", "Search again; nothing is evaluated twice.")
        except FileNotFoundError:
            raise UserError(f"{self.path}: nothing was searched yet. Search first.") from None

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def subnets(self) -> dict[str, Path]:
        """Exported networks: name to directory."""
        directory = self.path / "subnets"
        found = sorted(directory.iterdir()) if directory.is_dir() else []
        return {path.name: path for path in found if (path / "manifest.json").is_file()}

    def subnet(self, name: str) -> Subnet:
        """Loads an exported network, after checking its files against their hashes.

        Raises:
            UserError: There is no such network, or it was altered.
        """
        from search_spaces.errors import did_you_mean

        subnets = self.subnets
        if name not in subnets:
            known = f" Exported are: {', '.join(subnets)}.{did_you_mean(name, subnets)}" if subnets else " None is."
            raise UserError(f"{self.path}: no subnet {name!r} was exported.{known}")
        return load_subnet(subnets[name])

    def find(
        self,
        budget: str,
        device: str | Path | None = None,
        batch_size: int | None = None,
        min_tau: float | None = None,
    ) -> Mapping[str, Any]:
        """Finds the best evaluated subnet for a budget, without evaluating or exporting anything.

        Args:
            budget: Limits, such as `"macs<=40%,latency_ms<=3"`.
            device: Device file for latency and memory; the run's own when None.
            batch_size: Batch size that latency and memory refer to; the run's when None.
            min_tau: Least Kendall tau that the device file may have; the run's `device.min_tau` when None.

        Returns:
            The answer, as `supernest export RUN --budget ... --show --json` prints it.

        Raises:
            UserError: The budget cannot be read or met by any subnet, or nothing was searched yet.
        """
        from experiments.searching import new_budget as answer

        finished = answer.open_finished(self.path, None if device is None else Path(device), batch_size, min_tau)
        return answer.answer(finished, *answer.parse_budget(budget, finished)).as_json()

    def export(
        self,
        budget: str,
        *,
        refine: int | None = None,
        device: str | Path | None = None,
        batch_size: int | None = None,
        min_tau: float | None = None,
        progress: bool = True,
    ) -> Subnet:
        """Exports the best subnet for another budget, and loads it.

        Args:
            budget: Limits, such as `"macs<=40%,latency_ms<=3"`.
            refine: Evaluate up to so many candidates for this budget first.
            device: Device file for latency and memory; the run's own when None.
            batch_size: Batch size that latency and memory refer to; the run's when None.
            min_tau: Least Kendall tau that the device file may have; the run's `device.min_tau` when None.
            progress: Show a progress bar where the output is a terminal.

        Raises:
            UserError: No evaluated subnet meets the budget, or something else that the user can mend.
        """
        from experiments.pipeline.refine_budget import deliver
        from experiments.searching import new_budget as answer

        read = partial(answer.open_finished, self.path, None if device is None else Path(device), batch_size, min_tau)
        parsed, resolved = answer.parse_budget(budget, read())
        found = deliver(self.path, (), read, parsed, resolved, refine, False, not progress)
        assert found.subnet is not None
        return load_subnet(found.subnet.directory)

    def export_onnx(
        self,
        *names: str,
        batch: int | None = None,
        opset: int = 20,
        any_size: bool = False,
        quantize: str | None = None,
        max_loss: float | None = None,
    ) -> list[Mapping[str, Any]]:
        """Writes exported networks as ONNX files, `RUN/onnx/NAME/network.onnx`; needs the extra `onnx`.

        Args:
            names: Which; all of them when none is given.
            batch: Batch size of the files; any when None.
            opset: Version of ONNX's operators, 20 or 23.
            any_size: The files take pictures of any size, and crop and resize them as those of training were.
            quantize: `"int8"` for files of eight-bit products, `RUN/onnx/NAME.int8`.
            max_loss: Points of validation accuracy (percent of an error) that `quantize` may lose; 1 when None.

        Returns:
            The report of each file, with its directory.

        Raises:
            UserError: A network has an operation that ONNX lacks, loses too much, its file was written before, or the
                extra is missing.
        """
        if quantize not in (None, "int8"):
            raise UserError(f"quantize: {quantize!r} is no type of quantised weights. Give 'int8'.")
        if max_loss is not None and quantize is None:
            raise UserError("max_loss: goes with quantize='int8' only. Add it, or leave max_loss out.")
        from experiments.exporting.to_onnx import check_onnx_installed, export_onnx

        check_onnx_installed()
        from supernet.onnx.network import Settings

        if quantize is None:
            return _reports(export_onnx(self.path, names, Settings(batch, opset, any_size)))
        from experiments.exporting.quantization import Quantization

        chosen = Quantization() if max_loss is None else Quantization(max_loss)
        return _reports(export_onnx(self.path, names, Settings(batch, opset, any_size), chosen))

    def export_pytorch(self, *names: str) -> list[Mapping[str, Any]]:
        """Writes exported networks as PyTorch modules, `RUN/pytorch/NAME/network.py`; needs the extra `pytorch`.

        Args:
            names: Which; all of them when none is given.

        Returns:
            The report of each module, with its directory.

        Raises:
            UserError: A network is no vision transformer or MobileNet, its module was written before, or the extra is
                missing.
        """
        from experiments.exporting.to_pytorch import export_pytorch

        return _reports(export_pytorch(self.path, names))

    def export_tflite(self, *names: str, batch: int = 1) -> list[Mapping[str, Any]]:
        """Writes exported networks as LiteRT files, `RUN/tflite/NAME/network.tflite`; needs the extra `litert`.

        Args:
            names: Which; all of them when none is given.
            batch: Batch size of the files.

        Returns:
            The report of each file, with its directory.

        Raises:
            UserError: A network is no vision transformer or MobileNet, its file was written before, or the extra is
                missing.
        """
        from experiments.exporting.to_tflite import export_tflite

        return _reports(export_tflite(self.path, names, batch))

    def export_nested(self, *names: str, bits: int = 8) -> list[Mapping[str, Any]]:
        """Writes exported networks as residual blocks that are read up to any size, `RUN/nested/NAME`.

        Args:
            names: Which; all of them when none is given.
            bits: Blocks of each weight, each of a bit a weight and some more; 1 to 24.

        Returns:
            The report of each, with its directory; `load_subnet(directory, size="250kB")` reads a part.

        Raises:
            UserError: A network was written before, its code is not here, or it would be larger than in float32.
        """
        if not 1 <= bits <= 24:
            raise UserError(f"bits: {bits} is out of range. Give 1 to 24.")
        from experiments.exporting.to_nested import export_nested

        return _reports(export_nested(self.path, names, bits))


def _reports(converted: Sequence[ConvertedNetwork]) -> list[Mapping[str, Any]]:
    return [network.as_json() for network in converted]
