"""What is simpler in Python than in Rust: exceptions, results that are plain tuples, and progress on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy
    import pandas
    import torch
    from numpy.typing import NDArray

    from latlas._latlas import Network, Prediction, Table


class Error(Exception):
    """The base of all exceptions of this package. The text is the one that the program ``latlas`` prints."""


class FileError(Error, OSError):
    """A file that cannot be read."""


class TableError(Error, ValueError):
    """A text or a file that is not a latency table."""


class NetworkError(Error, ValueError):
    """A network with a mistake. The text names the layer or the field."""


class UsageError(Error, ValueError):
    """An argument that has no such value."""


class UnknownKey(Error, KeyError):
    """An op key without a row, or a text that is no op key."""

    def __str__(self) -> str:
        # A KeyError would show the text in quotes.
        return str(self.args[0])


class MissingRows(Error, LookupError):
    """The rows without which there is no prediction."""

    def __init__(self, message: str, why: dict[str, str]) -> None:
        super().__init__(message, why)
        self.why = why
        """Why each op key has no latency."""

    @property
    def keys(self) -> list[str]:
        """The op keys, each once, in the order of the networks."""
        return list(self.why)

    def __str__(self) -> str:
        return str(self.args[0])


class CoordinatorError(Error):
    """A coordinator that does not answer, or refuses."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status
        """HTTP status of a refusal; None without an answer."""

    def __str__(self) -> str:
        return str(self.args[0])


class StaleTable(UserWarning):
    """A table that lacks measurements which its coordinator has stored."""


class Hardware(NamedTuple):
    """A class of identical devices that a coordinator knows."""

    hardware_id: str
    agents: int
    configs: list[str]


class RequestStatus(NamedTuple):
    """How far a request to measure is."""

    request_id: str
    total: int
    """Tasks in all: rows and networks."""
    done: int
    failed: int
    running: int
    failures: dict[str, str]
    """Why tasks failed, by op key or as ``network NAME``; at most 100."""
    finished: bool
    cancelled: str | None
    """By whom it was cancelled, or None."""
    unattended: str | None
    """Why no agent works on it, and what to do; None while one does."""


class Profile(NamedTuple):
    """A network on one class of device: its prediction beside what was measured."""

    predicted: Prediction | None
    """The prediction of the new table; None if rows could not be measured."""
    measured_ms: float | None
    """The measured latency of the whole network in milliseconds, or None."""
    measured_low: float | None
    measured_high: float | None
    """The ends of its 95% interval."""
    failed: dict[str, str]
    """What has no number after the request, by op key or as ``network NAME``, and why."""
    request_id: str
    table: Table
    """The table with the new rows."""


class Predictions(NamedTuple):
    """Latencies of many networks in milliseconds, in the order of the networks."""

    ms: NDArray[numpy.float64]
    low: NDArray[numpy.float64]
    high: NDArray[numpy.float64]


class Latencies(NamedTuple):
    """Latencies of a supernet's choices, as tensors of PyTorch: a row for each layer, a column for each choice."""

    ms: torch.Tensor
    """Milliseconds; NaN behind the last choice of a layer."""
    mask: torch.Tensor
    """True for a choice."""


# Messages and pickles name the classes as their users do.
for _shown in (
    Error,
    FileError,
    TableError,
    NetworkError,
    UsageError,
    UnknownKey,
    MissingRows,
    CoordinatorError,
    StaleTable,
    Hardware,
    RequestStatus,
    Profile,
    Predictions,
    Latencies,
):
    _shown.__module__ = "latlas"


class Progress:
    """Progress on stderr: a bar of tqdm where it is installed, otherwise a line at intervals.

    ``wanted`` is None for a terminal only. With False nothing is written at all.
    """

    BETWEEN_LINES = 15.0

    def __init__(self, wanted: bool | None) -> None:
        self.silent = wanted is False or sys.stderr is None
        self.shown = not self.silent and (wanted is True or sys.stderr.isatty())
        self.bar: Any = None
        self.line: tuple[float, int] | None = None

    def show(self, total: int, settled: int, text: str) -> None:
        """Shows how many tasks are settled."""
        if not self.shown:
            return
        if self.bar is None and self.line is None:
            self.bar = self.open(total)
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(settled - self.bar.n)
            self.bar.refresh()
            return
        now = time.monotonic()
        if self.line is not None:
            said_at, said = self.line
            if settled == said or (settled != total and now - said_at < self.BETWEEN_LINES):
                return
        self.line = (now, settled)
        print(f"{settled} of {total}  {text}", file=sys.stderr)

    @staticmethod
    def open(total: int) -> Any:
        """A bar, or None without tqdm."""
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        return tqdm(total=total, unit="task", file=sys.stderr)

    def say(self, text: str) -> None:
        """Writes a line without disturbing the bar."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        elif not self.silent:
            print(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self.bar is not None:
            self.bar.close()


def arrays(ms: bytearray, low: bytearray, high: bytearray) -> Predictions:
    """The columns as arrays, without a copy."""
    import numpy

    return Predictions(*(numpy.frombuffer(column, dtype=numpy.float64) for column in (ms, low, high)))


def numbers(content: bytearray) -> NDArray[numpy.int32]:
    """Row numbers as an array, without a copy."""
    import numpy

    return numpy.frombuffer(content, dtype=numpy.int32)


def row_numbers(networks: NDArray[Any]) -> tuple[bytes, int]:
    """An array of row numbers as bytes of 32-bit integers, and the number of ops of each network."""
    import numpy

    array = numpy.asarray(networks)
    if array.ndim != 2:
        raise TypeError(
            f"networks: an array of row numbers has a line for each network, and this one has the shape {array.shape}"
        )
    bounds = numpy.iinfo(numpy.int32)
    if array.dtype != numpy.int32 and array.size and (array.min() < bounds.min or array.max() > bounds.max):
        raise IndexError("networks: a row number has 32 bits")
    if len(array) and not array.shape[1]:
        raise NetworkError("networks[0]: it has no op")
    return array.astype(numpy.int32, copy=False).tobytes(), array.shape[1]


def latencies(ms: bytearray, mask: bytearray, shape: tuple[int, int]) -> Latencies:
    """Latencies of a supernet's choices as tensors, without a copy."""
    import torch

    def tensor(content: bytearray, dtype: torch.dtype) -> torch.Tensor:
        return torch.frombuffer(content, dtype=dtype).reshape(shape)

    return Latencies(tensor(ms, torch.float32), tensor(mask, torch.bool))


Records = list[dict[str, Any]]

# Columns that are floating point even where each row of a table has None.
FLOATS = ("latency_micros", "energy_mj", "ci95_rel", "median_micros")


def columns(keys: list[str], records: Records, names: list[str]) -> dict[str, list[Any]]:
    """Records as columns."""
    return {"key": keys, **{name: [record[name] for record in records] for name in names}}


def pandas_frame(keys: list[str], records: Records, names: list[str]) -> pandas.DataFrame:
    """A table as a frame of pandas."""
    import pandas

    return pandas.DataFrame(columns(keys, records, names)).astype({name: "float64" for name in FLOATS})


def unpickled_network(text: str) -> Network:
    """A network from the text that ``pickle`` stores of it."""
    from latlas._latlas import Network

    return Network.from_json(text)


def unpickled_table(text: str) -> Table:
    """A table from the text that ``pickle`` stores of it."""
    from latlas._latlas import Table

    return Table.from_json(text)


def exported(model: Any, args: Any, path: str) -> None:
    """Writes a PyTorch model as the .pt2 of torch.export."""
    import torch

    if getattr(model, "training", False):
        raise NetworkError("the model is in train mode, in which it would be measured wrongly: call model.eval() first")
    inputs = args if isinstance(args, tuple) else (args,)
    with torch.no_grad():
        torch.export.save(torch.export.export(model, inputs), path)
