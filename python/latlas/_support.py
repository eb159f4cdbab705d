"""What is simpler in Python than in Rust: exceptions, and results that are plain tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy
    import pandas
    import polars
    from numpy.typing import NDArray

    from latlas._latlas import Network, Table


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


class Predictions(NamedTuple):
    """Latencies of many networks in milliseconds, in the order of the networks."""

    ms: NDArray[numpy.float64]
    low: NDArray[numpy.float64]
    high: NDArray[numpy.float64]


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
    Predictions,
):
    _shown.__module__ = "latlas"


def arrays(ms: bytearray, low: bytearray, high: bytearray) -> Predictions:
    """The columns as arrays, without a copy."""
    import numpy

    return Predictions(*(numpy.frombuffer(column, dtype=numpy.float64) for column in (ms, low, high)))


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


def polars_frame(keys: list[str], records: Records, names: list[str]) -> polars.DataFrame:
    """A table as a frame of polars."""
    import polars

    floats = {name: polars.Float64 for name in FLOATS}
    return polars.DataFrame(columns(keys, records, names), schema_overrides=floats)


def unpickled_network(text: str) -> Network:
    """A network from the text that ``pickle`` stores of it."""
    from latlas._latlas import Network

    return Network.from_json(text)


def unpickled_table(text: str) -> Table:
    """A table from the text that ``pickle`` stores of it."""
    from latlas._latlas import Table

    return Table.from_json(text)
