"""The facts that gpu-check finds on a machine: the torch of its Python, and the GPU's own library."""

import ctypes
import importlib.util
import os
import re
import threading
import time
from pathlib import Path

import arithmetic


class Problem(Exception):
    """Something is missing or wrong; the text names it and the remedy."""


def torch_folder():
    """The folder of the torch that this Python would import, without importing it; None if there is none."""
    found = importlib.util.find_spec("torch")
    return Path(found.submodule_search_locations[0]) if found else None


def torch_version(folder):
    """Its version without the suffix that names its CUDA."""
    found = re.search(r"__version__ = '([^'+]+)", (folder / "version.py").read_text())
    return found.group(1) if found else "unknown"


def library_path(torch):
    """The folders of its libraries and of the NVIDIA libraries that it links to."""
    folders = [torch / "lib"]
    folders += sorted(path for path in (torch.parent / "nvidia").glob("*/lib") if path.is_dir())
    return [str(folder) for folder in folders]


def environment(programs):
    """The environment in which the programs of a folder find libtorch.

    Programs built on this machine find their own libtorch. A bundle was built elsewhere, and a file in it names the
    required torch version; it uses this machine's torch.
    """
    made_for = programs / "torch-version"
    if not made_for.is_file():
        return dict(os.environ)
    wanted = made_for.read_text().strip()
    torch = torch_folder()
    if torch is None:
        raise Problem(
            f"this Python has no torch, and the agent of this bundle runs with its libraries. Install torch {wanted} "
            "for it, or start gpu-check with a Python that has it: python3 gpu-check."
        )
    found = torch_version(torch)
    if found != wanted:
        raise Problem(
            f"the torch of this Python is {found}, and the agent of this bundle was built for {wanted}. Use a Python "
            "with that one, or build Latlas here: docs/setup.md tells how."
        )
    path = library_path(torch) + [os.environ.get("LD_LIBRARY_PATH", "")]
    return dict(os.environ, LD_LIBRARY_PATH=":".join(part for part in path if part))


class Card:
    """A GPU in NVML, through ctypes."""

    def __init__(self, index):
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise Problem(f"NVML cannot be loaded ({error}): the driver is not there, or not handed through.")
        self.ask("nvmlInit_v2")
        self.device = ctypes.c_void_p()
        self.ask("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(self.device))

    def ask(self, function, *arguments):
        code = getattr(self.nvml, function)(*arguments)
        if code:
            self.nvml.nvmlErrorString.restype = ctypes.c_char_p
            raise Problem(f"NVML refuses {function}: {self.nvml.nvmlErrorString(code).decode()}")

    def joules(self):
        """Its energy consumption since its driver was loaded."""
        value = ctypes.c_ulonglong()
        self.ask("nvmlDeviceGetTotalEnergyConsumption", self.device, ctypes.byref(value))
        return value.value / 1e3

    def watts(self):
        """Its current power; many cards give a mean over a second."""
        value = ctypes.c_uint()
        self.ask("nvmlDeviceGetPowerUsage", self.device, ctypes.byref(value))
        return value.value / 1e3


class PowerLog:
    """Samples of a card's power and energy counter while something runs."""

    def __init__(self, card, period=0.02):
        self.card, self.period = card, period
        self.power, self.energy, self.problem = [], [], None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        try:
            while not self.ended.is_set():
                now = time.monotonic()
                self.power.append((now, self.card.watts()))
                self.energy.append((now, self.card.joules()))
                self.ended.wait(self.period)
        except Problem as problem:
            self.problem = problem

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def joules(self):
        """Over the same time: the difference of the counter, and the integral of the power."""
        if self.problem:
            raise self.problem
        if len(self.energy) < 2:
            raise Problem("the card's power could not be followed: fewer than two samples")
        return self.energy[-1][1] - self.energy[0][1], arithmetic.integral(self.power)
