"""Tests of the phases that need a GPU, with fakes: rows, card, PyTorch's times and another process."""

import contextlib
import io
import json
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent / "benchmarks"))

import common  # noqa: E402
import phases  # noqa: E402
from machine import Problem  # noqa: E402


def row(key, device, host, status="ok", energy=None, reason=None):
    point = {"reuse_distance_bytes": 0, "quiet_micros": device, "median_micros": device, "host_micros": host}
    # 5% on each side.
    point.update(ci95_low_micros=0.95 * device, ci95_high_micros=1.05 * device)
    point.update(host_ci95_low_micros=0.95 * host, host_ci95_high_micros=1.05 * host)
    return {
        "subject": {"op": {"key": key}},
        "run_config": {"reuse_distance_bytes": 0},
        "latency": None if status == "failed" else {"curve": [point]},
        "status": status,
        "reason": reason,
        "energy": energy,
        "peak_memory_bytes": 300 << 20,
    }


class FakePrograms:
    """Measures without delay; `rows` gives the result, from a key and the arguments."""

    device = "cuda:0"

    def __init__(self, rows):
        self.rows, self.deadline = rows, time.monotonic() + 60

    def left(self):
        return self.deadline - time.monotonic()

    def bench_keys(self, keys, *arguments, faults=None):
        return {key: self.rows(key, arguments, faults or "") for key in keys}

    def bench_space(self, space, *arguments):
        return self.bench_keys([f"Conv3x3:n{i}-h8-w8-i4-o4-s1" for i in range(1, 61)])


class Findings:
    def __init__(self):
        self.figures, self.details = common.Figures(), {}


def check_of(rows, times=None):
    check = phases.Check(FakePrograms(rows), data, quick=False)
    check.time_in_torch = lambda keys: {key: times(key) for key in keys}
    return check


def data(name):
    return next(path for path in (HERE / name, HERE.parent / "benchmarks" / name) if path.is_file())


class Phases(unittest.TestCase):
    def run_phase(self, phase, check):
        found = Findings()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            phase(check, found)
        self.said = said.getvalue()
        return found.figures.lines

    def test_ops_are_held_against_events_and_host_bound_ones_have_a_figure_of_their_own(self):
        def rows(key, arguments, faults):
            return row(key, 5.0, 20.0) if ":n1-" in key else row(key, 102.0, 20.0)

        def times(key):
            return {"micros": 4.0 if ":n1-" in key else 100.0, "in_graph_micros": 5.1, "peak_bytes": 1}

        lines = self.run_phase(phases.agreement, check_of(rows, times))
        self.assertEqual(
            lines,
            [
                "figure agreement_ops 40 >=38 ok",
                "figure agreement_median_off 2% <=3% ok",
                "figure agreement_host_bound_median_off 25% <=3% short",
            ],
        )

    def test_two_tables_are_compared_by_what_a_call_costs(self):
        builds = []

        def rows(key, arguments, faults):
            builds.append(key)
            again = len(builds) > 60
            # The device time varies, and the cost of a call is the host time.
            return row(key, 2.0 if again else 1.0, 20.2 if again else 20.0)

        lines = self.run_phase(phases.repeatability, check_of(rows))
        self.assertEqual(
            lines,
            [
                "figure repeatability_inside 100% >=90% ok",
                "figure repeatability_device_rows 60 >=60 ok",
                "figure repeatability_device_median 100% <=2% short",
                "figure repeatability_device_p95 100% <=6% short",
                "figure repeatability_rows 60 >=60 ok",
                "figure repeatability_median 1% <=2% ok",
                "figure repeatability_p95 1% <=6% ok",
            ],
        )

    def faults(self, rows, needed=100 << 20):
        log = mock.MagicMock()
        log.__enter__.return_value.joules.return_value = (300.0, 310.0)
        times = lambda key: {"micros": 1.0, "in_graph_micros": None, "peak_bytes": needed}  # noqa: E731
        card = mock.patch("machine.Card", lambda index: None)
        with card, mock.patch("machine.PowerLog", lambda card: log), mock.patch("phases.POWER_LAG", 0):
            return self.run_phase(phases.faults, check_of(rows, times))

    def test_a_fault_costs_one_row_and_energy_and_memory_are_plausible(self):
        def rows(key, arguments, faults):
            if faults.startswith(key + "="):
                return row(key, 0, 0, status="failed", reason="out of memory\nframe #0")
            return row(key, 100.0, 20.0, energy={"gross_mj": 30.0} if "--energy" in arguments else None)

        lines = self.faults(rows)
        self.assertEqual(lines[:2], ["figure rows_lost_to_memory_fault 1 =1 ok", "figure rows_lost_to_kernel_fault 1 =1 ok"])
        self.assertEqual(lines[2], "figure energy_counter_off 3.226% <=10% ok")
        self.assertEqual(lines[3:], ["figure energy_rows 100% >=100% ok", "figure memory_covers_need 100% >=100% ok"])
        self.assertIn("about 300 W", self.said)
        self.assertNotIn("frame", self.said)

    def test_a_fault_that_costs_all_rows_no_energy_and_too_little_memory_are_short(self):
        def rows(key, arguments, faults):
            return row(key, 100.0, 20.0, status="failed" if faults else "ok")

        lines = self.faults(rows, needed=400 << 20)
        self.assertEqual([line.split()[-1] for line in lines], ["short", "short", "ok", "short", "short"])

    def test_company_is_noticed(self):
        stranger = "import sys; print('working', flush=True); sys.stdin.read()"
        seen = iter(["ok", "degraded"])
        rows = lambda key, *_: row(key, 100.0, 20.0, status=next(seen))  # noqa: E731
        with mock.patch("phases.SOURCE", stranger):
            lines = self.run_phase(phases.company, check_of(rows))
        self.assertEqual(
            lines,
            ["figure disturbed_alone 0% <=0% ok", "figure disturbed_beside_another 100% >=100% ok"],
        )
        with mock.patch("phases.SOURCE", "raise SystemExit(1)"), self.assertRaisesRegex(Problem, "did not start"):
            self.run_phase(phases.company, check_of(lambda key, *_: row(key, 1.0, 1.0)))

    def test_a_network_is_judged_although_the_time_is_over(self):
        programs = mock.Mock(scratch=Path(self.scratch()), device="cuda:0")
        (programs.scratch / "table.json").write_text('{"calibration": {"networks": 1}}')
        programs.left.return_value = 73.0
        programs.bench.return_value = [{"status": "not_converged"}]
        accuracy = {
            "overall": {"within_10": 1.0, "mape": 0.02, "predicted": 1, "networks": 1, "covered": 1.0},
            "calibrated": [{"fitted_on": 5, "summary": {"within_10": None, "mape": None}}],
            "networks": [
                {"name": "a", "measured_micros": 110.0, "prediction": {"predicted_micros": 112.0, "error": 0.018}},
                {"name": "b", "measured_micros": 10.0, "prediction": None},
            ],
        }
        programs.json.side_effect = [{"keys": ["k"]}, accuracy, {"keys": ["k"]}]
        ops = '{"name": "a", "ops": [{"latency_micros": 9.0, "host_micros": 9.0, "device_micros": 100.0}]}'
        programs.start.return_value = (1, ops + '\n{"name": "b", "missing": []}\n', "")
        check = phases.Check(programs, data, quick=False)
        lines = self.run_phase(lambda c, found: phases.judge_networks(c, found, "f32", [{"name": "a"}]), check)
        self.assertEqual(
            lines,
            [
                "figure f32_networks 1 >=31 short",
                "figure f32_within_10 100% >=95% ok",
                "figure f32_mape 2% <=4% ok",
                "figure f32_covered 100% >=90% ok",
                "figure f32_device_bound 100% >=30% ok",
            ],
        )
        self.assertEqual(programs.bench.call_args.args[-2:], ("--minutes", "1.00"))
        self.assertIn("1 of 2 were measured, 0 of them converged", self.said)
        programs.left.return_value = 13.0
        with self.assertRaises(phases.OutOfTime):
            self.run_phase(lambda c, found: phases.judge_networks(c, found, "f32", [{"name": "a"}]), check)

    def test_a_space_calibrates_itself(self):
        programs = mock.Mock(scratch=Path(self.scratch()), device="cuda:0")
        programs.left.return_value = 63.0
        programs.bench.return_value = [{"some": "row"}]
        learned = {"networks": 3, "scale": 1.0, "footprint_mib": 12.0, "per_op_micros": -1.0, "noise": 1.0}
        for calibration, line in ((learned, "3 >=3 ok"), (None, "0 >=3 short")):
            (programs.scratch / "table.json").write_text(json.dumps({"calibration": calibration}))
            lines = self.run_phase(phases.calibration, phases.Check(programs, data, quick=False))
            self.assertEqual(lines, [f"figure calibration_networks {line}"])
        self.assertEqual(programs.bench.call_args.args[-4:], ("--calibrate", 3, "--minutes", "1.00"))

    def test_a_device_becomes_warm(self):
        run = {"sustained": {"seconds": 60, "burst_micros": 100.0, "sustained_micros": 130.0}}
        programs = mock.Mock(device="cuda:0")
        check = phases.Check(programs, data, quick=False)
        for rows, left, line, seconds in (([run], 99.0, "1 >=1 ok", 60), ([], 25.0, "0 >=1 short", 15)):
            programs.left.return_value, programs.bench.return_value = left, rows
            self.assertEqual(self.run_phase(phases.heat, check), [f"figure sustained_runs {line}"])
            self.assertEqual(programs.bench.call_args.args[-1], seconds)
        programs.left.return_value = 11.0
        with self.assertRaises(phases.OutOfTime):
            self.run_phase(phases.heat, check)

    def scratch(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name


if __name__ == "__main__":
    unittest.main()
