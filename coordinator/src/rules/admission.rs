//! The conditions under which a measurement or an enrolment is admitted. Pure checks of data from
//! the network. The text of a refusal is addressed to its sender.

use std::borrow::Cow;
use std::collections::HashSet;

use latlas_shared::api::{AgentChange, EnrolRequest, Heartbeat};
use latlas_shared::{HardwareId, Measurement, ResultError, RunConfig, Subject, Telemetry};
use ops_catalog::{Invalid, Op, OpDigest};

/// The most bytes of a reason, a name or a version.
const MOST_TEXT: usize = 4000;

/// The most bytes of a measurement's samples.
const MOST_SAMPLES: usize = 256 << 10;

/// The most bytes of a fingerprint's JSON.
const MOST_FINGERPRINT: usize = 32 << 10;

/// What is known about the hardware id of an agent.
#[derive(Debug, Clone)]
pub struct EnrolledClass {
    /// Its hardware id.
    pub hardware_id: HardwareId,
    /// Digests of the fingerprints of its enrolled agents.
    pub fingerprints: HashSet<String>,
    /// Ids of its run configs.
    pub configs: HashSet<String>,
}

/// Why a measurement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Its finish time is before its start time.
    #[error("it finished before it started")]
    Backwards,
    /// It has too many bytes of text.
    #[error("its texts have more than {MOST_TEXT} bytes")]
    Texts,
    /// It has too many reference ops.
    #[error("it has more than {MOST_REFERENCES} reference ops")]
    References,
    /// A reference op has an impossible latency.
    #[error("a reference op took no time, or no finite time")]
    ReferenceLatency,
    /// Its samples are too long.
    #[error("its samples have more than {MOST_SAMPLES} bytes")]
    ManySamples,
    /// Its samples can't be decompressed; the text is the decompressor's error.
    #[error("{0}")]
    Samples(String),
    /// Its hardware id differs from its agent's.
    #[error("it is for {measured}, and this agent was enrolled as {enrolled}")]
    Hardware {
        /// The measurement's hardware id.
        measured: HardwareId,
        /// The agent's hardware id.
        enrolled: HardwareId,
    },
    /// No agent was enrolled with its fingerprint.
    #[error(
        "no agent of {hardware_id} was enrolled with its fingerprint: has the box changed since? \
         Enrol the agent again"
    )]
    Fingerprint {
        /// The class of device.
        hardware_id: HardwareId,
    },
    /// No agent was enrolled with its run config.
    #[error("no agent of {hardware_id} was enrolled with run config {config}: enrol one with it")]
    Config {
        /// The class of device.
        hardware_id: HardwareId,
        /// Id of the run config.
        config: String,
    },
    /// Its op is unknown.
    #[error("no op with digest {digest} is known here: submit {name} first")]
    UnknownOp {
        /// The op's digest.
        digest: OpDigest,
        /// The op's name in the measurement.
        name: String,
    },
    /// The digest belongs to an op with another name.
    #[error("digest {digest} is {name}, and not {said}")]
    OtherOp {
        /// The op's digest.
        digest: OpDigest,
        /// The name of the op with this digest.
        name: String,
        /// The name in the measurement.
        said: String,
    },
    /// Its shape or its network is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Status, reason, latency and energy don't fit together.
    #[error(transparent)]
    Result(#[from] ResultError),
}

/// Why a field of a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadField {
    /// It is out of its bounds.
    #[error("{field}: {bounds}")]
    Bounds {
        /// The field's path.
        field: Cow<'static, str>,
        /// The allowed values.
        bounds: Cow<'static, str>,
    },
    /// The change is empty.
    #[error("give `name` or `labels`")]
    NoChange,
}

impl BadField {
    fn new(field: impl Into<Cow<'static, str>>, bounds: impl Into<Cow<'static, str>>) -> BadField {
        BadField::Bounds { field: field.into(), bounds: bounds.into() }
    }
}

/// Checks a measurement. `op` is the op with its digest, if the digest is known.
///
/// # Errors
/// What is wrong with it. The refusal is final: the same measurement would be refused again.
pub fn check_measurement(
    measurement: &Measurement,
    known: &EnrolledClass,
    op: Option<&Op>,
) -> Result<(), NotAdmitted> {
    check_origin(measurement, known)?;
    // The times are from the box's clock, so only their order matters.
    if measurement.finished_at < measurement.started_at {
        return Err(NotAdmitted::Backwards);
    }
    check_sizes(measurement)?;
    match &measurement.subject {
        Subject::Op { key, digest } => {
            let (digest, said) = (digest.clone(), key.op.clone());
            let Some(op) = op else {
                return Err(NotAdmitted::UnknownOp { digest, name: said });
            };
            if op.name() != key.op {
                let name = op.name().to_owned();
                return Err(NotAdmitted::OtherOp { digest, name, said });
            }
            op.at(&key.shape)?;
        }
        Subject::Network(network) => {
            network.plan()?;
        }
    }
    Ok(measurement.check_result()?)
}

/// Reference ops that a run may have.
const MOST_REFERENCES: usize = 16;

fn check_sizes(measurement: &Measurement) -> Result<(), NotAdmitted> {
    let Measurement { reason, energy, before, during, after, samples, agent_version, .. } =
        measurement;
    let texts = [before, during, after]
        .into_iter()
        .flat_map(texts_of)
        .chain(reason)
        .chain(energy.as_ref().map(|energy| &energy.source))
        .chain([agent_version]);
    if bytes_of(texts) > MOST_TEXT {
        return Err(NotAdmitted::Texts);
    }
    if measurement.references.len() > MOST_REFERENCES {
        return Err(NotAdmitted::References);
    }
    if !measurement.references.values().all(|micros| micros.is_finite() && *micros > 0.0) {
        return Err(NotAdmitted::ReferenceLatency);
    }
    if samples.as_ref().is_some_and(|samples| samples.len() > MOST_SAMPLES) {
        return Err(NotAdmitted::ManySamples);
    }
    Ok(())
}

/// The texts of telemetry.
fn texts_of(telemetry: &Telemetry) -> impl Iterator<Item = &String> {
    telemetry.throttle.iter().flatten()
}

/// The size of texts. Each text counts one extra byte, so that the number of empty texts is limited
/// too.
fn bytes_of<'t>(texts: impl Iterator<Item = &'t String>) -> usize {
    texts.map(|text| text.len() + 1).fold(0, usize::saturating_add)
}

fn check_origin(measurement: &Measurement, known: &EnrolledClass) -> Result<(), NotAdmitted> {
    let hardware_id = known.hardware_id.clone();
    if measurement.hardware_id != hardware_id {
        let measured = measurement.hardware_id.clone();
        return Err(NotAdmitted::Hardware { measured, enrolled: hardware_id });
    }
    if !known.fingerprints.contains(&measurement.fingerprint) {
        return Err(NotAdmitted::Fingerprint { hardware_id });
    }
    let config = measurement.run_config.id();
    if !known.configs.contains(&config) {
        return Err(NotAdmitted::Config { hardware_id, config });
    }
    Ok(())
}

/// The most leases that a heartbeat lists.
const MOST_LEASES: usize = 1000;

/// The most bytes of an agent's reason for being unfit or leaving.
const MOST_UNFIT: usize = 500;

/// Checks a heartbeat. It is kept in memory and written repeatedly.
///
/// # Errors
/// Names the field and its bounds.
pub fn check_heartbeat(beat: &Heartbeat) -> Result<(), BadField> {
    if beat.leases.len() > MOST_LEASES {
        return Err(BadField::new("leases", format!("at most {MOST_LEASES}")));
    }
    if beat.unfit.as_ref().is_some_and(|reason| reason.len() > MOST_UNFIT) {
        return Err(BadField::new("unfit", format!("at most {MOST_UNFIT} bytes")));
    }
    if bytes_of(texts_of(&beat.telemetry)) > MOST_TEXT {
        return Err(BadField::new(
            "telemetry.throttle",
            format!("at most {MOST_TEXT} bytes together"),
        ));
    }
    if beat.leaving.as_ref().is_some_and(|reason| reason.len() > MOST_UNFIT) {
        return Err(BadField::new("leaving", format!("at most {MOST_UNFIT} bytes")));
    }
    Ok(())
}

fn plain(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn check_name(name: &str) -> Result<(), BadField> {
    if !plain(name, 100) {
        return Err(BadField::new("name", "1 to 100 characters on one line"));
    }
    Ok(())
}

/// Checks a new name or labels of an agent.
///
/// # Errors
/// Names the field and its bounds.
pub fn check_change(change: &AgentChange) -> Result<(), BadField> {
    if let Some(name) = &change.name {
        check_name(name)?;
    }
    for (key, value) in &change.labels {
        let of_a_label = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !plain(key, 60) || !key.chars().all(of_a_label) {
            return Err(BadField::new(
                "labels",
                "a key has 1 to 60 letters, digits and `.`, `_`, `-`, `/`",
            ));
        }
        if value.as_ref().is_some_and(|value| !plain(value, 200)) {
            return Err(BadField::new(
                format!("labels.{key}"),
                "1 to 200 characters on one line, or null to remove it",
            ));
        }
    }
    if change.name.is_none() && change.labels.is_empty() {
        return Err(BadField::NoChange);
    }
    Ok(())
}

/// Checks an enrolment.
///
/// # Errors
/// Names the field and its bounds.
pub fn check_enrolment(request: &EnrolRequest) -> Result<(), BadField> {
    check_name(&request.name)?;
    if !plain(&request.agent_version, 50) {
        return Err(BadField::new("agent_version", "1 to 50 characters on one line"));
    }
    if request.primitives.is_empty()
        || request.primitives.len() > 200
        || !request.primitives.iter().all(|name| plain(name, 50))
    {
        return Err(BadField::new("primitives", "1 to 200 names of 1 to 50 characters"));
    }
    for (field, text) in [
        ("runtime", &request.run_config.runtime),
        ("runtime_version", &request.run_config.runtime_version),
    ] {
        if !RunConfig::is_name(text) {
            return Err(BadField::new(
                format!("run_config.{field}"),
                "1 to 40 of letters, digits, `.`, `+`, `_` and `-`",
            ));
        }
    }
    if !(1..=4096).contains(&request.run_config.threads) {
        return Err(BadField::new("run_config.threads", "1 to 4096"));
    }
    if request.run_config.reuse_distance_bytes > 1 << 40 {
        return Err(BadField::new("run_config.reuse_distance_bytes", "at most 1 TiB"));
    }
    if request.box_key.as_ref().is_some_and(|key| !plain(key, 128) || key.len() < 16) {
        return Err(BadField::new("box_key", "16 to 128 characters on one line"));
    }
    let size = serde_json::to_string(&request.fingerprint).map_or(usize::MAX, |text| text.len());
    if size > MOST_FINGERPRINT {
        return Err(BadField::new(
            "fingerprint",
            format!("at most {MOST_FINGERPRINT} bytes of JSON"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use latlas_shared::{Status, WholeNetwork, testing};
    use ops_catalog::Catalog;

    fn check(change: impl FnOnce(&mut Measurement)) -> Result<(), NotAdmitted> {
        let mut measurement = testing::measurement("Conv3x3:n1-h8-w8-i4-o4-s1", 10.0);
        change(&mut measurement);
        let known = EnrolledClass {
            hardware_id: testing::fingerprint(8).hardware_id(),
            fingerprints: [testing::fingerprint(8).digest()].into(),
            configs: [testing::run_config().id()].into(),
        };
        let op = match &measurement.subject {
            Subject::Op { digest, .. } => {
                Catalog::builtin().ops().find(|op| op.digest() == digest).map(AsRef::as_ref)
            }
            Subject::Network(_) => None,
        };
        check_measurement(&measurement, &known, op)
    }

    fn curve(m: &mut Measurement) -> &mut Vec<latlas_shared::CurvePoint> {
        &mut m.latency.as_mut().unwrap().curve
    }

    /// A measurement of a network whose definition was changed.
    fn change_network(m: &mut Measurement, change: impl FnOnce(&mut WholeNetwork)) {
        *m = testing::network_measurement("demo_conv", 10.0);
        let Subject::Network(network) = &mut m.subject else { panic!() };
        change(network);
    }

    #[test]
    fn what_is_well_formed_comes_in() {
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|m| m.status = Status::NotConverged), Ok(()));
        // The box's clock does not matter.
        assert_eq!(check(|m| m.finished_at = jiff::Timestamp::MAX), Ok(()));
        assert_eq!(check(|m| m.started_at = jiff::Timestamp::UNIX_EPOCH), Ok(()));
        assert_eq!(check(|m| *m = testing::network_measurement("demo_conv", 10.0)), Ok(()));
        assert_eq!(
            check(|m| {
                m.status = Status::Failed;
                m.latency = None;
                m.reason = Some("out of memory".into());
            }),
            Ok(())
        );
    }

    #[test]
    fn what_is_not_is_refused_with_the_reason() {
        type Change = fn(&mut Measurement);
        let cases: [(Change, &str); 22] = [
            (|m| m.hardware_id = "other.cpu".parse().unwrap(), "enrolled as test-9000-2c-8gb.cpu"),
            (|m| m.fingerprint = "00".into(), "Enrol the agent again"),
            (
                |m| m.run_config.threads = 9,
                "no agent of test-9000-2c-8gb.cpu was enrolled with run config f32",
            ),
            (|m| m.started_at = jiff::Timestamp::MAX, "finished before it started"),
            (|m| m.reason = Some("x".repeat(5000)), "more than 4000 bytes"),
            (
                |m| change_network(m, |network| network.spec.name = Some(String::new())),
                "1 to 200 bytes",
            ),
            (|m| change_network(m, |network| network.spec.input = None), "input"),
            (
                |m| {
                    change_network(m, |network| {
                        network.digest = "net2-00000000000000000000000000000000".parse().unwrap()
                    })
                },
                "another version of the catalog",
            ),
            (
                |m| {
                    change_network(m, |_| ());
                    curve(m)[0].reuse_distance_bytes = 1;
                },
                "no point at 0 bytes",
            ),
            (
                |m| {
                    m.energy = Some(latlas_shared::Energy {
                        gross_mj: 0.0,
                        net_mj: 0.0,
                        uncertainty_mj: 0.0,
                        source: "rapl".into(),
                    })
                },
                "what was not measured is null",
            ),
            (|m| m.status = Status::Failed, "has a latency"),
            (|m| m.latency = None, "has no latency"),
            (|m| curve(m)[0].quiet_micros = -1.0, "not sound"),
            (|m| curve(m)[0].median_micros = 1e13, "not sound"),
            (|m| curve(m)[1].host_micros = Some(0.0), "not sound"),
            (|m| m.samples = Some("x".repeat(1 << 20)), "samples have more than"),
            (|m| curve(m).clear(), "not sound"),
            (|m| curve(m).swap(0, 1), "not sound"),
            (|m| curve(m)[0].reuse_distance_bytes = 1, "no point at 8388608 bytes"),
            (
                |m| {
                    m.subject = Subject::Op {
                        key: "Conv3x3:n1-h8-w8-i4-o4-s1".parse().unwrap(),
                        digest: "op1-00000000000000000000000000000000".parse().unwrap(),
                    }
                },
                "submit Conv3x3 first",
            ),
            (
                |m| {
                    let Subject::Op { key, .. } = &mut m.subject else { panic!() };
                    key.op = "Conv5x5".into();
                },
                "is Conv3x3, and not Conv5x5",
            ),
            (
                |m| {
                    m.status = Status::Failed;
                    m.latency = None;
                },
                "gives no reason",
            ),
        ];
        for (change, expected) in cases {
            let error = check(change).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn enrolments_are_bounded() {
        let ok = testing::enrolment("box", 8);
        assert_eq!(check_enrolment(&ok), Ok(()));
        type Change = fn(&mut EnrolRequest);
        let cases: [(Change, &str); 9] = [
            (|r| r.box_key = Some("short".into()), "box_key"),
            (|r| r.name = "a\nb".into(), "name"),
            (|r| r.agent_version = String::new(), "agent_version"),
            (|r| r.primitives.clear(), "primitives"),
            (|r| r.run_config.runtime = String::new(), "run_config.runtime:"),
            (|r| r.run_config.runtime_version = "2/../1".into(), "run_config.runtime_version"),
            (|r| r.run_config.threads = 0, "run_config.threads"),
            (|r| r.run_config.reuse_distance_bytes = u64::MAX, "reuse_distance_bytes"),
            (|r| r.fingerprint.arch = "x".repeat(50_000), "fingerprint"),
        ];
        for (change, field) in cases {
            let mut request = ok.clone();
            change(&mut request);
            let error = check_enrolment(&request).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
