//! Reading goes on when the coordinator can't write.

use latlas_tests::{RealFarm, hardware_id};

/// One key of `Conv1x1`, asked for and measured.
fn measure(farm: &RealFarm, c_out: u32) {
    let space = format!(
        "name: one\ngrids:\n  - {{ops: [Conv1x1], resolution: [4], c_in: [4], c_out: [{c_out}], stride: [1]}}\n"
    );
    let space = farm.file("space.yaml", &space);
    farm.profile(&hardware_id(), &["--space", &space]).ok();
    farm.agent().ok();
}

#[test]
fn a_coordinator_without_room_serves_the_last_tables_and_says_that_they_are_stale() {
    let farm = RealFarm::start();
    farm.agent().ok();
    measure(&farm, 4);
    let hardware = hardware_id();
    let get = || farm.latlas(&["table", "get", &hardware]);
    let before = get();
    assert!(!before.stderr.contains("lacks measurements"), "{}", before.stderr);
    let before = before.ok();
    // Acknowledged, and read by nobody while there is room.
    measure(&farm, 8);
    farm.disk_is_full(true);
    for _ in 0..2 {
        let stale = get();
        assert!(stale.stderr.contains("lacks measurements"), "{}", stale.stderr);
        assert!(stale.stderr.contains("(disk-"), "{}", stale.stderr);
        assert_eq!(stale.ok(), before);
    }
    let list = farm.latlas(&["table", "list"]);
    assert!(list.stderr.contains("lacks measurements"), "{}", list.stderr);
    assert!(list.ok().contains(&hardware));
    farm.disk_is_full(false);
    let after = get();
    assert!(!after.stderr.contains("lacks measurements"), "{}", after.stderr);
    let after = latlas_shared::Table::from_json(&after.ok()).unwrap();
    assert_eq!(after.rows.len(), 2);
}
