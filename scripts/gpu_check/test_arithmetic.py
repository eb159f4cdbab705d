"""Tests of the computations of gpu-check."""

import unittest

from arithmetic import calls_of_block, clocks_of, device_share, fitting, host_bound, integral
from arithmetic import network_with_batch, off, per_call, plan, spread


class Arithmetic(unittest.TestCase):
    def test_power_is_integrated_over_uneven_samples(self):
        self.assertEqual(integral([]), 0)
        self.assertEqual(integral([(3.0, 70.0)]), 0)
        self.assertAlmostEqual(integral([(0.0, 100.0), (1.0, 100.0), (1.5, 200.0)]), 100 + 75)

    def test_a_block_has_as_many_calls_as_fill_it(self):
        self.assertEqual(calls_of_block(300.0, 3000), 10)
        self.assertEqual(calls_of_block(1e9, 3000), 1)
        self.assertEqual(calls_of_block(0.0, 3000), 20000)
        self.assertAlmostEqual(per_call(elapsed_ms=3.0, calls=10), 300.0)

    def test_what_the_host_bounds_is_told_apart(self):
        self.assertTrue(host_bound(10.0, 3.0))
        self.assertTrue(host_bound(9.5, 10.0))
        self.assertFalse(host_bound(5.0, 10.0))
        self.assertFalse(host_bound(None, 10.0))

    def test_the_larger_clock_bounds_a_network(self):
        gpu = [{"latency_micros": 9.0, "host_micros": 9.0, "device_micros": 2.0}] * 3
        self.assertEqual(clocks_of(gpu), (27.0, 6.0))
        # On a processor there is one clock.
        self.assertEqual(clocks_of([{"latency_micros": 4.0}]), (0.0, 4.0))
        networks = [(100.0, 27.0, 6.0), (300.0, 10.0, 290.0)]
        self.assertAlmostEqual(device_share(networks), 75.0)
        self.assertEqual(device_share([]), 0.0)

    def test_a_network_gets_a_batch_and_a_name_that_says_so(self):
        spec = {"name": "a", "input": {"n": 1, "c": 3}, "published": {"flops": 1}}
        batched = network_with_batch(spec, 32)
        self.assertEqual(batched, {"name": "a-n32", "input": {"n": 32, "c": 3}})
        self.assertEqual(spec["input"]["n"], 1)
        self.assertEqual(network_with_batch(spec, 1)["name"], "a")

    def test_a_part_is_spread_over_the_whole(self):
        self.assertEqual(spread(list(range(10)), 3), [0, 3, 6])
        self.assertEqual(spread([1, 2], 5), [1, 2])

    def test_phases_share_the_time(self):
        ends = plan([("a", 1), ("b", 3)], minutes=2)
        self.assertEqual(ends, {"a": 30.0, "b": 120.0})

    def test_what_does_not_fit_into_the_time_is_left_out(self):
        self.assertEqual(fitting(20, 4, 2.0, 1000.0), 20)
        self.assertEqual(fitting(20, 4, 2.0, 15.0), 7)
        self.assertEqual(fitting(20, 4, 2.0, -3.0), 4)

    def test_errors_are_in_percent(self):
        self.assertAlmostEqual(off(97.0, 100.0), 3.0)
        self.assertAlmostEqual(off(103.0, 100.0), 3.0)


if __name__ == "__main__":
    unittest.main()
