"""Latency tables of real devices, and predictions of whole networks from them.

>>> import latlas
>>> table = latlas.Table.load("table.json")
>>> prediction = table.predict(latlas.Network.builtin("demo_mobile"))
>>> print(f"{prediction.ms:.2f} ms ({prediction.low:.2f} to {prediction.high:.2f})")
1.30 ms (1.24 to 1.37)
"""

from latlas._latlas import (
    Client,
    Cost,
    Network,
    OpCost,
    OpPrediction,
    Prediction,
    Row,
    Table,
    __version__,
)
from latlas._support import (
    CoordinatorError,
    Error,
    FileError,
    Hardware,
    MissingRows,
    NetworkError,
    Predictions,
    StaleTable,
    TableError,
    UnknownKey,
    UsageError,
)

__all__ = [
    "Client",
    "CoordinatorError",
    "Cost",
    "Error",
    "FileError",
    "Hardware",
    "MissingRows",
    "Network",
    "NetworkError",
    "OpCost",
    "OpPrediction",
    "Prediction",
    "Predictions",
    "Row",
    "StaleTable",
    "Table",
    "TableError",
    "UnknownKey",
    "UsageError",
    "__version__",
]
