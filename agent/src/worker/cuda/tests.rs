use latlas_predict::two_clock::{OpTimes, network_micros};
use proptest::prelude::*;

use super::fake::{FakeCall, FakeContention, FakeQueue, Parameters, Shared, TYPICAL, world};
use super::*;

const MIB: u64 = 1 << 20;
const LARGEST: u64 = 64 * MIB;
const PLENTY: u64 = 16 << 30;

fn with_memory(world: &Shared, memory: Memory) -> CudaBackend<FakeQueue, FakeContention> {
    CudaBackend::new(FakeQueue(world.clone()), FakeContention(world.clone()), memory, LARGEST)
        .unwrap()
}

fn backend(world: &Shared) -> CudaBackend<FakeQueue, FakeContention> {
    let l2_bytes = world.borrow().parameters.l2_bytes;
    with_memory(world, Memory { l2_bytes, limit_bytes: PLENTY })
}

/// Device and host time at a distance, the median of a few samples.
fn measure(parameters: Parameters, reuse_distance_bytes: u64) -> (f64, f64) {
    let world = world(parameters);
    let pass = Pass::new(reuse_distance_bytes, 5);
    let samples = backend(&world).sample(pass, &mut FakeCall(world.clone())).unwrap();
    assert_eq!((samples.micros.len(), samples.host_micros.len()), (5, 5));
    (median(&samples.micros), median(&samples.host_micros))
}

#[track_caller]
fn assert_close(measured: f64, truth: f64, tolerance: f64) {
    assert!((measured / truth - 1.0).abs() <= tolerance, "{measured} instead of {truth}");
}

#[test]
fn a_large_op_has_its_device_time_and_its_host_time() {
    let (device, host) = measure(TYPICAL, 0);
    // No wait for the first call to be issued: nothing but a mark is in the window.
    assert_close(device, 40.0, 1e-3);
    assert_close(host, 6.0, OVERHEAD_SHARE);
}

#[test]
fn the_device_time_of_what_waits_for_the_host_is_found_behind_other_work() {
    let (device, host) = measure(Parameters { kernel: 2.0, ..TYPICAL }, 0);
    assert_close(host, 6.0, OVERHEAD_SHARE);
    assert_close(device, 2.0, OVERHEAD_SHARE);
}

#[test]
fn the_host_s_time_alone_is_sampled_without_the_device_s() {
    let world = world(Parameters { kernel: 2.0, ..TYPICAL });
    let mut backend = backend(&world);
    let mut sample = |pass| backend.sample(pass, &mut FakeCall(world.clone())).unwrap();
    let both = sample(Pass::new(0, 5));
    let alone = sample(Pass { host_only: true, ..Pass::new(0, 5) });
    assert_eq!((alone.micros.len(), alone.host_micros.len(), alone.count()), (0, 5, 5));
    assert_close(median(&alone.host_micros), median(&both.host_micros), OVERHEAD_SHARE);
    assert!(alone.ops_micros < both.ops_micros / 5.0, "{alone:?} {both:?}");
}

#[test]
fn samples_beside_somebody_else_s_work_are_taken_again_and_count_as_disturbed() {
    let world = world(TYPICAL);
    let mut backend = backend(&world);
    let pass = Pass::new(0, 5);
    let mut sample = |contention| {
        world.borrow_mut().contention = contention;
        let samples = backend.sample(pass, &mut FakeCall(world.clone())).unwrap();
        (samples.micros.len(), samples.rejected, samples.disturbed)
    };
    assert_eq!(sample(false), (5, 0, 0));
    assert_eq!(sample(true), (5, 5, 5));
    assert_eq!(sample(false), (5, 0, 0));
}

#[test]
fn what_the_worker_holds_is_what_is_no_longer_free() {
    let world = world(TYPICAL);
    let mut backend = backend(&world);
    assert_eq!(backend.held_bytes().unwrap(), Some(0));
    world.borrow_mut().free -= 300 * MIB;
    assert_eq!(backend.held_bytes().unwrap(), Some(300 * MIB));
    // Others let go of more than we took.
    world.borrow_mut().free = 1 << 40;
    assert_eq!(backend.held_bytes().unwrap(), Some(0));
}

#[test]
fn weights_are_hot_at_no_distance_and_cold_at_the_largest() {
    // Each copy is 1 MiB and the cache holds 8.
    for (distance, truth) in
        [(0, 40.0), (2 * MIB, 40.0), (4 * MIB, 40.0), (16 * MIB, 50.0), (LARGEST, 50.0)]
    {
        assert_close(measure(TYPICAL, distance).0, truth, OVERHEAD_SHARE);
    }
}

#[test]
fn the_largest_distance_is_cold_in_a_cache_that_is_larger() {
    let large = Parameters { l2_bytes: 96 * MIB, ..TYPICAL };
    assert_close(measure(large, 32 * MIB).0, 40.0, OVERHEAD_SHARE);
    assert_close(measure(large, LARGEST).0, 50.0, OVERHEAD_SHARE);
}

#[test]
fn the_copies_besides_one_make_up_the_distance() {
    let world = world(TYPICAL);
    let backend = backend(&world);
    let rotated = |distance, bytes| backend.rotated(distance, bytes);
    assert_eq!(rotated(0, MIB), 1);
    assert_eq!(rotated(2 * MIB, 0), 1);
    assert_eq!(rotated(2 * MIB, MIB), 3);
    assert_eq!(rotated(2 * MIB, 3 * MIB), 2);
    assert_eq!(rotated(2 * MIB, 1), 256);
    assert_eq!(backend.copies(MIB), 65);
}

#[test]
fn copies_are_capped_by_memory_and_there_is_always_one() {
    let world = world(TYPICAL);
    let memory = Memory { l2_bytes: 8 * MIB, limit_bytes: 40 * MIB };
    let backend = with_memory(&world, memory);
    assert_eq!(backend.copies(MIB), 10);
    assert_eq!(backend.copies(30 * MIB), 1);
    assert_eq!(backend.memory_limit(), Some(40 * MIB));
}

#[test]
fn a_short_queue_does_not_make_the_host_wait() {
    // 5 calls of 8 launches fit; the device is far behind.
    let slow = Parameters { launches: 8, depth: 44, kernel: 500.0, ..TYPICAL };
    let (device, host) = measure(slow, 0);
    assert_close(host, 6.0, OVERHEAD_SHARE);
    assert_close(device, 500.0, OVERHEAD_SHARE);
}

#[test]
fn there_is_one_wait_per_block() {
    let world = world(TYPICAL);
    let mut backend = backend(&world);
    let mut waits = |samples| {
        let before = world.borrow().waits;
        let pass = Pass::new(0, samples);
        backend.sample(pass, &mut FakeCall(world.clone())).unwrap();
        world.borrow().waits - before
    };
    // Each sample is a block on the host and one on the device.
    assert_eq!(waits(15) - waits(5), 2 * 10);
}

#[test]
fn samples_say_how_many_calls_they_are_the_mean_of() {
    let world = world(TYPICAL);
    let mut backend = backend(&world);
    let mut calls = |samples| {
        let before = world.borrow().calls;
        let pass = Pass::new(0, samples);
        let sampled = backend.sample(pass, &mut FakeCall(world.clone())).unwrap();
        (sampled.calls, world.borrow().calls - before)
    };
    let ((per_sample, few), (_, many)) = (calls(5), calls(15));
    // Those of the host's blocks and before the first mark come on top.
    assert!(per_sample > 1 && many - few > 10 * per_sample as usize);
}

#[test]
fn a_host_bound_op_is_issued_no_more_often_than_its_block_needs() {
    let world = world(Parameters { dispatch: 90.0, kernel: 26.0, ..TYPICAL });
    let mut backend = backend(&world);
    let timed = (backend.long_enough() / 26.0).ceil() as usize;
    assert!(FILLED_CALLS.contains(&timed) && timed < *FILLED_CALLS.end(), "{timed}");
    let mut calls = |samples| {
        let before = world.borrow().calls;
        let pass = Pass::new(0, samples);
        backend.sample(pass, &mut FakeCall(world.clone())).unwrap();
        world.borrow().calls - before
    };
    // Of each sample: the calls for the host's time, those before the mark, and those that are timed.
    let (few, many) = (calls(10), calls(110));
    let of_one = (many - few) as f64 / 100.0;
    assert_close(of_one, (5 + LEAD_CALLS + timed) as f64, 0.02);
}

#[test]
fn a_call_that_takes_no_time_ends() {
    let nothing = Parameters { kernel: 0.0, fetch: 0.0, dispatch: 0.0, ..TYPICAL };
    let (device, host) = measure(nothing, 0);
    assert!(device > 0.0 && host > 0.0);
}

#[test]
fn a_slow_op_is_not_run_once_for_each_of_many_copies() {
    let slow = Parameters { kernel: 50_000.0, copy_bytes: 1000, ..TYPICAL };
    let world = world(slow);
    let pass = Pass::new(LARGEST, 1);
    backend(&world).sample(pass, &mut FakeCall(world.clone())).unwrap();
    let calls = world.borrow().calls;
    assert!(calls < 20, "{calls} calls of 50 ms each");
}

#[test]
fn a_network_is_timed_from_start_to_result() {
    let network = Parameters { kernel: 4000.0, dispatch: 900.0, is_network: true, ..TYPICAL };
    let (latency, host) = measure(network, 0);
    assert_close(host, 900.0, 1e-3);
    let whole = OpTimes { host_micros: 900.0, device_micros: 4000.0 };
    // The simulated op is a single launch at the end of its dispatch.
    assert_close(latency, network_micros([whole], TYPICAL.wait), 1e-3);
}

#[test]
fn a_lost_context_is_noticed() {
    let world = world(TYPICAL);
    let mut backend = backend(&world);
    assert!(backend.finish().is_ok());
    world.borrow_mut().breaks_after = Some(50);
    let pass = Pass::new(0, 5);
    let error = backend.sample(pass, &mut FakeCall(world.clone())).unwrap_err();
    assert!(error.to_string().contains("illegal memory access"), "{error}");
    assert!(backend.finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_times_of_any_op_are_found(
        dispatch in 2.0f64..50.0,
        kernel in 0.5f64..20_000.0,
        launches in 1usize..20,
        wait in 1.0f64..40.0,
        mark in 0.2f64..4.0,
        clock in 0.01f64..0.2,
    ) {
        let op = Parameters { dispatch, kernel, launches, wait, mark, clock, ..TYPICAL };
        let (device, host) = measure(op, 0);
        prop_assert!((host / dispatch - 1.0).abs() < 0.01, "host {host} of {dispatch}");
        prop_assert!((device / kernel - 1.0).abs() < 0.01, "device {device} of {kernel}");
    }

    #[test]
    fn more_distance_never_means_fewer_copies(
        a in 0u64..100 << 20,
        b in 0u64..100 << 20,
        copy_bytes in 0u64..200 << 20,
        l2_bytes in 0u64..100 << 20,
        limit_bytes in 0u64..1 << 34,
    ) {
        let world = world(TYPICAL);
        let memory = Memory { l2_bytes, limit_bytes };
        let backend = with_memory(&world, memory);
        let (near, far) = (a.min(b), a.max(b));
        prop_assert!(backend.rotated(near, copy_bytes) <= backend.rotated(far, copy_bytes));
        // No pass wants a copy that was not made, and what is made fits.
        let made = backend.copies(copy_bytes) as u64;
        prop_assert!(backend.rotated(near.min(LARGEST), copy_bytes) as u64 <= made);
        prop_assert!(made == 1 || made * copy_bytes <= limit_bytes / 4);
    }
}
