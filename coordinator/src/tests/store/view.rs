//! Rows, their rebuilding, and the view `latency_lookup`.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::{Row, Status, Table, testing};
use sqlx::Row as _;

use crate::store::{Incoming, Rebuilt};
use crate::tests::harness::{Farm, KEYS, reader};

type Line = (String, String, i64, i64, i64, i64, i64, f64, Option<f64>);

/// Reads the view as another program would, after the rows are derived.
async fn lookup(farm: &Farm) -> Vec<Line> {
    farm.store().derive().await.unwrap();
    let pool = reader(&farm.dir.path().join(crate::DATABASE)).await;
    let rows = sqlx::query("SELECT * FROM latency_lookup ORDER BY 1, 2, 3, 4, 5, 6, 7")
        .fetch_all(&pool)
        .await
        .unwrap();
    if let Some(row) = rows.first() {
        let names: Vec<&str> = row.columns().iter().map(sqlx::Column::name).collect();
        let seed = "hardware_id, op_type, input_h, input_w, channels_in, channels_out, stride, \
                    latency_micros, energy_mj";
        assert_eq!(names.join(", "), seed);
    }
    rows.iter()
        .map(|r| {
            (
                r.get(0),
                r.get(1),
                r.get(2),
                r.get(3),
                r.get(4),
                r.get(5),
                r.get(6),
                r.get(7),
                r.get(8),
            )
        })
        .collect()
}

fn line(hardware_id: &str, row: &Row) -> Line {
    (
        hardware_id.to_owned(),
        row.op_type.clone(),
        row.input_h.into(),
        row.input_w.into(),
        row.channels_in.into(),
        row.channels_out.into(),
        row.stride.into(),
        row.latency_micros.unwrap(),
        row.energy_mj,
    )
}

#[tokio::test]
async fn the_view_has_the_numbers_of_the_api() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let mut with_energy = agent.measures(KEYS[1], 1.0 / 3.0);
    with_energy.energy = Some(latlas_shared::Energy {
        gross_mj: 0.1,
        net_mj: 0.05,
        uncertainty_mj: 0.01,
        source: "rapl".into(),
    });
    let mut failed = agent.measures("Conv3x3:n1-h9-w9-i4-o4-s1", 1.0);
    failed.status = Status::Failed;
    failed.latency = None;
    failed.reason = Some("out of memory".into());
    farm.report(&agent, vec![agent.measures(KEYS[0], 0.1 + 0.2), with_energy, failed]).await;
    let hardware_id = agent.enrolled.hardware_id.as_str();
    let path = format!("/v1/tables/{hardware_id}");
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.rows.len(), 3);
    let numbers = table.rows.iter().filter(|row| row.latency_micros.is_some());
    let expected: Vec<Line> = numbers.map(|row| line(hardware_id, row)).collect();
    assert_eq!(lookup(&farm).await, expected);
    assert_eq!(expected[0].7.to_bits(), (0.1f64 + 0.2).to_bits());
}

#[tokio::test]
async fn one_row_per_seed_key() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    // The smallest batch with a number.
    let batch = |n: u32| format!("Conv3x3:n{n}-h8-w8-i4-o4-s1");
    farm.report(&agent, vec![agent.measures(&batch(4), 4.0), agent.measures(&batch(2), 2.0)]).await;
    assert_eq!(lookup(&farm).await[0].7, 2.0);
    // The default run config, even if others are measured.
    let mut enrolment = testing::enrolment("two threads", 8);
    enrolment.run_config.threads = 2;
    let other = farm.join(&enrolment).await;
    let mut measurement = agent.measures(&batch(1), 9.0);
    measurement.run_config.threads = 2;
    let incoming = Incoming { measurements: vec![measurement], ..Incoming::default() };
    let answer = farm.store().add_results(&other, incoming, Timestamp::now()).await.unwrap();
    assert_eq!(answer.stored, 1);
    let lines = lookup(&farm).await;
    assert_eq!((lines.len(), lines[0].7), (1, 2.0));
}

/// All derived data, as served.
async fn derived(farm: &Farm) -> (Vec<Line>, String) {
    let path = format!("/v1/tables/{}", testing::fingerprint(8).hardware_id());
    (lookup(farm).await, farm.get(&path).send().await.body)
}

#[tokio::test]
async fn a_rebuild_changes_nothing() {
    let farm = Farm::new().await;
    let agents =
        [farm.enrol("one", 8).await, farm.enrol("two", 8).await, farm.enrol("three", 8).await];
    let mut micros = 1.0;
    for round in 0..4 {
        for agent in &agents {
            let mut measurements = Vec::new();
            for key in KEYS {
                micros = (micros * 7.3) % 11.0 + 1.0;
                let mut measurement = agent.measures(key, micros);
                measurement.finished_at += SignedDuration::from_secs(i64::from(round % 3));
                if micros > 10.0 {
                    measurement.status = Status::NotConverged;
                }
                measurements.push(measurement);
            }
            farm.report(agent, measurements).await;
        }
    }
    let before = derived(&farm).await;
    assert_eq!(
        farm.store().rebuild().await.unwrap(),
        Rebuilt { rows: 2, networks: 0, unreadable: 0 }
    );
    assert_eq!(derived(&farm).await, before);
}

#[tokio::test]
async fn measurements_are_only_added() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let pool = reader(&farm.dir.path().join(crate::DATABASE)).await;
    for sql in ["DELETE FROM measurements", "UPDATE measurements SET status = 'failed'"] {
        assert!(sqlx::query(sql).execute(&pool).await.is_err(), "{sql}");
    }
}
