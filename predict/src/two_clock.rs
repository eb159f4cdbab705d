//! The latency of a network on a device with a queue, from the host and device times of its ops.
//!
//! The host issues one op after the other without waiting; the device runs them in that order. So the latency of a
//! network is not the sum of its ops: while the device works, the host is already ahead, and if the host is slower, the
//! device waits for it.

/// The times of one op, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpTimes {
    /// Time to issue it, on the host.
    pub host_micros: f64,
    /// Time to run it, on the device.
    pub device_micros: f64,
}

/// The two clocks during a network that starts on an idle device.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TwoClocks {
    host_micros: f64,
    device_micros: f64,
}

impl TwoClocks {
    /// Issues one more op: `h += d; g = max(g, h) + k`.
    pub fn issue(&mut self, op: OpTimes) {
        self.host_micros += op.host_micros;
        self.device_micros = self.device_micros.max(self.host_micros) + op.device_micros;
    }

    /// The time at which a waiting caller gets the result; `sync_micros` is the cost of one wait in addition to the
    /// work.
    pub fn finish(self, sync_micros: f64) -> f64 {
        self.host_micros.max(self.device_micros) + sync_micros
    }
}

/// The latency of a network in microseconds: its ops in running order, and one wait at the end.
///
/// The queue counts as unbounded. A real host that is a thousand launches ahead waits, but by then the network is bound
/// by the device, so the result is the same.
pub fn network_micros(ops: impl IntoIterator<Item = OpTimes>, sync_micros: f64) -> f64 {
    let mut clocks = TwoClocks::default();
    for op in ops {
        clocks.issue(op);
    }
    clocks.finish(sync_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ops(times: &[(f64, f64)]) -> Vec<OpTimes> {
        times
            .iter()
            .map(|&(host_micros, device_micros)| OpTimes { host_micros, device_micros })
            .collect()
    }

    fn latency(times: &[(f64, f64)]) -> f64 {
        network_micros(ops(times), 0.0)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    /// The same by another method: some op is the last for which the device waited. Before it the host's time counts,
    /// and from it on the device's.
    fn longest_path(times: &[(f64, f64)]) -> f64 {
        let issued = |last: usize| times[..=last].iter().map(|t| t.0).sum::<f64>();
        let run = |first: usize| times[first..].iter().map(|t| t.1).sum::<f64>();
        (0..times.len()).map(|i| issued(i) + run(i)).fold(0.0, f64::max)
    }

    #[test]
    fn small_ops_are_bound_by_the_host_and_large_ones_by_the_device() {
        assert!(close(latency(&[(10.0, 2.0); 5]), 5.0 * 10.0 + 2.0));
        assert!(close(latency(&[(10.0, 200.0); 5]), 10.0 + 5.0 * 200.0));
        // While the device runs the large op, the host gets ahead, and the small ones cost only device time.
        assert!(close(
            latency(&[(10.0, 100.0), (10.0, 2.0), (10.0, 2.0)]),
            10.0 + 100.0 + 2.0 + 2.0
        ));
        // In the opposite order the small ones have nothing to overlap with.
        assert!(close(latency(&[(10.0, 2.0), (10.0, 2.0), (10.0, 100.0)]), 30.0 + 100.0));
        assert!(close(network_micros(ops(&[(1.0, 1.0)]), 7.0), 9.0));
        assert!(close(network_micros([], 7.0), 7.0));
    }

    proptest! {
        #[test]
        fn it_is_the_longest_path(times in prop::collection::vec((0.0f64..1e4, 0.0f64..1e4), 0..30)) {
            prop_assert!(close(latency(&times), longest_path(&times)));
        }

        #[test]
        fn it_lies_between_the_slower_clock_and_both_together(
            times in prop::collection::vec((0.0f64..1e4, 0.0f64..1e4), 1..30),
        ) {
            let host: f64 = times.iter().map(|t| t.0).sum();
            let device: f64 = times.iter().map(|t| t.1).sum();
            let latency = latency(&times);
            prop_assert!(latency >= host.max(device) * (1.0 - 1e-12));
            prop_assert!(latency <= (host + device) * (1.0 + 1e-12));
        }

        #[test]
        fn a_slower_op_never_makes_a_faster_network(
            times in prop::collection::vec((0.0f64..1e4, 0.0f64..1e4), 1..30),
            which in any::<prop::sample::Index>(),
            more in (0.0f64..1e3, 0.0f64..1e3),
        ) {
            let mut slower = times.clone();
            let op = &mut slower[which.index(times.len())];
            *op = (op.0 + more.0, op.1 + more.1);
            prop_assert!(latency(&slower) >= latency(&times));
            prop_assert!(latency(&slower) <= (latency(&times) + more.0 + more.1) * (1.0 + 1e-12));
        }

        #[test]
        fn another_unit_of_time_gives_the_same(
            times in prop::collection::vec((0.0f64..1e4, 0.0f64..1e4), 1..30),
            unit in 1e-3f64..1e3,
        ) {
            let scaled: Vec<_> = times.iter().map(|t| (t.0 * unit, t.1 * unit)).collect();
            prop_assert!(close(latency(&scaled), latency(&times) * unit));
        }

        /// A processor is the case without device time: there the latency of the network is the sum.
        #[test]
        fn without_device_time_it_is_the_sum(host in prop::collection::vec(0.0f64..1e4, 1..30)) {
            let times: Vec<_> = host.iter().map(|&d| (d, 0.0)).collect();
            prop_assert!(close(latency(&times), host.iter().sum()));
        }
    }
}
