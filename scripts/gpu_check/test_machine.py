"""Tests of the facts that gpu-check finds on a machine, with fake machines."""

import tempfile
import threading
import unittest
from pathlib import Path

import machine


class FakeCard:
    """Draws 70 W and counts 5 J at each reading; reports when it has been read often enough."""

    def __init__(self, looks):
        self.left, self.enough, self.counted = looks, threading.Event(), 0.0

    def watts(self):
        return 70.0

    def joules(self):
        self.left -= 1
        if self.left <= 0:
            self.enough.set()
        self.counted += 5.0
        return self.counted


class Machine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def fake_torch(self, version):
        torch = self.folder / "site-packages/torch"
        (torch / "lib").mkdir(parents=True)
        for name in ("cu13", "cudnn"):
            (torch.parent / "nvidia" / name / "lib").mkdir(parents=True)
        (torch.parent / "nvidia/empty").mkdir()
        (torch / "version.py").write_text(f"__all__ = ['a']\n__version__ = '{version}'\ncuda = '13.0'\n")
        return torch

    def test_a_torch_has_its_libraries_and_those_of_nvidia(self):
        torch = self.fake_torch("2.11.0+cu130")
        packages = str(torch.parent)
        self.assertEqual(
            machine.library_path(torch),
            [f"{packages}/torch/lib", f"{packages}/nvidia/cu13/lib", f"{packages}/nvidia/cudnn/lib"],
        )
        self.assertEqual(machine.torch_version(torch), "2.11.0")

    def test_a_bundle_runs_with_the_torch_that_it_was_built_for(self):
        torch = self.fake_torch("2.11.0+cu130")
        self.addCleanup(setattr, machine, "torch_folder", machine.torch_folder)
        machine.torch_folder = lambda: torch
        self.assertNotIn(str(torch), str(machine.environment(self.folder)))
        (self.folder / "torch-version").write_text("2.11.0\n")
        path = machine.environment(self.folder)["LD_LIBRARY_PATH"]
        self.assertTrue(path.startswith(str(torch / "lib") + ":"))
        (self.folder / "torch-version").write_text("2.13.0\n")
        with self.assertRaisesRegex(machine.Problem, "is 2.11.0, .* built for 2.13.0"):
            machine.environment(self.folder)
        machine.torch_folder = lambda: None
        with self.assertRaisesRegex(machine.Problem, "has no torch"):
            machine.environment(self.folder)

    def test_power_and_counter_are_of_the_same_time(self):
        card = FakeCard(looks=5)
        with machine.PowerLog(card, period=0.001) as log:
            card.enough.wait()
        counted, integrated = log.joules()
        self.assertEqual(counted, 5.0 * (len(log.energy) - 1))
        seconds = log.power[-1][0] - log.power[0][0]
        self.assertAlmostEqual(integrated, 70.0 * seconds)

    def test_a_card_that_refuses_is_a_problem(self):
        card = FakeCard(looks=1)
        card.watts = lambda: (_ for _ in ()).throw(machine.Problem("NVML refuses"))
        with machine.PowerLog(card) as log:
            log.thread.join()
        with self.assertRaisesRegex(machine.Problem, "NVML refuses"):
            log.joules()


if __name__ == "__main__":
    unittest.main()
