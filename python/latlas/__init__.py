"""Latency tables of real devices, and predictions of whole networks from them.

>>> import latlas
>>> table = latlas.Table.load("table.json")
>>> prediction = table.predict(latlas.Network.builtin("demo_mobile"))
>>> print(f"{prediction.ms:.2f} ms ({prediction.low:.2f} to {prediction.high:.2f})")
1.30 ms (1.24 to 1.37)
"""

from latlas._latlas import (
    ArchHash,
    Client,
    Cost,
    Network,
    OpCost,
    OpPrediction,
    Prediction,
    Request,
    Row,
    Table,
    __version__,
    arch_hash,
)
from latlas._support import (
    CoordinatorError,
    Error,
    FileError,
    Hardware,
    Latencies,
    MissingRows,
    NetworkError,
    Predictions,
    Profile,
    RequestStatus,
    StaleTable,
    TableError,
    UnknownKey,
    UsageError,
)

__all__ = [
    "ArchHash",
    "Client",
    "CoordinatorError",
    "Cost",
    "Error",
    "FileError",
    "Hardware",
    "Latencies",
    "MissingRows",
    "Network",
    "NetworkError",
    "OpCost",
    "OpPrediction",
    "Prediction",
    "Predictions",
    "Profile",
    "Request",
    "RequestStatus",
    "Row",
    "StaleTable",
    "Table",
    "TableError",
    "UnknownKey",
    "UsageError",
    "__version__",
    "arch_hash",
]
