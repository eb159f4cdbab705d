//! The protocol with the command of a runtime: one JSON object per line. `docs/runtimes.md` documents it.

use std::collections::BTreeMap;

use latlas_shared::{Device, Dtype, RunConfig};
use serde::{Deserialize, Serialize};

use super::RuntimeError;
use crate::system::energy::Busy;

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// What a command says of itself, unasked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: u32,
    /// The runtime's name.
    pub runtime: String,
    /// The runtime's version.
    pub version: String,
    /// Kinds of devices, without an index: `cpu`, `cuda`.
    pub devices: Vec<String>,
    /// Names of element types.
    pub dtypes: Vec<String>,
    /// Whether it can evict weights from the caches.
    #[serde(default)]
    pub can_evict: bool,
    /// What else changes latencies, for the fingerprint.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// The most facts of a command, and the longest name or text of one.
const MOST_FACTS: usize = 20;
const LONGEST_FACT: usize = 200;

impl Hello {
    /// Checks that the command speaks this protocol and can do what is wanted.
    ///
    /// # Errors
    /// Says what it lacks, and what it has instead.
    pub fn check(&self, device: Device, dtype: Dtype) -> Result<(), RuntimeError> {
        let refused = |problem: String| Err(RuntimeError::Hello(problem));
        if self.protocol != PROTOCOL {
            return refused(format!(
                "it speaks protocol {}, and this agent protocol {PROTOCOL}: take the command and the agent from one \
                 release",
                self.protocol
            ));
        }
        for (field, text) in [("runtime", &self.runtime), ("version", &self.version)] {
            if !RunConfig::is_name(text) {
                return refused(format!(
                    "its {field} is `{}`: 1 to 40 of letters, digits, `.`, `+`, `_` and `-`",
                    shown(text)
                ));
            }
        }
        let kind = match device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
        };
        if !self.devices.iter().any(|name| name == kind) {
            let there_are = shown(&self.devices.join(", "));
            return refused(format!("it has no device `{kind}`, but: {there_are}; see --device"));
        }
        if !self.dtypes.iter().any(|name| *name == dtype.to_string()) {
            let there_are = shown(&self.dtypes.join(", "));
            return refused(format!(
                "it has no element type {dtype}, but: {there_are}; see --dtype"
            ));
        }
        let long = |text: &String| text.chars().count() > LONGEST_FACT;
        if self.facts.len() > MOST_FACTS || self.facts.iter().any(|(k, v)| long(k) || long(v)) {
            return refused(format!(
                "its facts are more than {MOST_FACTS} or longer than {LONGEST_FACT} characters"
            ));
        }
        Ok(())
    }
}

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request<'a> {
    /// Once, after the hello.
    Start {
        /// Where models run.
        device: Device,
        /// Element type.
        dtype: Dtype,
        /// Threads of one call.
        threads: u32,
        /// The largest reuse distance of later requests.
        largest_reuse_distance_bytes: u64,
        /// An ONNX file of an op that computes nothing.
        smallest: &'a str,
    },
    /// Load a model.
    Prepare {
        /// Its name in later requests.
        id: u64,
        /// An ONNX file.
        model: &'a str,
    },
    /// Time some calls.
    Sample {
        /// The model.
        id: u64,
        /// Number of calls.
        samples: u32,
        /// Bytes of other memory that are read before each.
        reuse_distance_bytes: u64,
    },
    /// Call a model without a pause.
    Run {
        /// The model.
        id: u64,
        /// For so long.
        seconds: f64,
    },
    /// Free a model.
    Drop {
        /// The model.
        id: u64,
    },
}

impl Request<'_> {
    /// The word for it, and for its reply.
    pub fn words(&self) -> (&'static str, &'static str) {
        match self {
            Request::Start { .. } => ("start", "started"),
            Request::Prepare { .. } => ("prepare", "prepared"),
            Request::Sample { .. } => ("sample", "sampled"),
            Request::Run { .. } => ("run", "ran"),
            Request::Drop { .. } => ("drop", "dropped"),
        }
    }
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Unasked, before all others.
    Hello(Hello),
    /// To `start`.
    Started {},
    /// To `prepare`.
    Prepared {},
    /// To `sample`.
    Sampled(Sampled),
    /// To `run`.
    Ran(Busy),
    /// To `drop`.
    Dropped {},
    /// To any request that cannot be met.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Reply {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Reply::Hello(_) => "hello",
            Reply::Started {} => "started",
            Reply::Prepared {} => "prepared",
            Reply::Sampled(_) => "sampled",
            Reply::Ran(_) => "ran",
            Reply::Dropped {} => "dropped",
            Reply::Refused { .. } => "refused",
        }
    }
}

/// Times of calls.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Sampled {
    /// Microseconds of each call.
    pub micros: Vec<f64>,
    /// The host's microseconds of issuing each call, if they are not the latency.
    #[serde(default)]
    pub host_micros: Vec<f64>,
    /// Whether the process was preempted during each call, if it knows.
    #[serde(default)]
    pub preempted: Vec<bool>,
    /// Number of calls that each sample is the mean of.
    #[serde(default = "one")]
    pub calls: u32,
    /// Microseconds that were spent reading other memory.
    #[serde(default)]
    pub reading_micros: f64,
}

fn one() -> u32 {
    1
}

impl Sampled {
    /// Checks that the times are as many as were asked for, and possible in the time that passed.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn check(&self, samples: u32, elapsed_micros: f64) -> Result<(), String> {
        let count = samples as usize;
        if self.micros.len() != count {
            return Err(format!("{} times came for {count} samples", self.micros.len()));
        }
        for (field, length) in
            [("host_micros", self.host_micros.len()), ("preempted", self.preempted.len())]
        {
            if length != 0 && length != count {
                return Err(format!("{field} has {length} entries for {count} samples"));
            }
        }
        let possible = |time: &&f64| time.is_finite() && **time > 0.0;
        let times = || self.micros.iter().chain(&self.host_micros);
        if let Some(time) = times().find(|time| !possible(time)) {
            return Err(format!("{time} us is no time of a call"));
        }
        if self.calls == 0 || !(self.reading_micros.is_finite() && self.reading_micros >= 0.0) {
            return Err("calls is 0, or reading_micros is no time".to_owned());
        }
        let claimed = f64::from(self.calls) * self.micros.iter().sum::<f64>();
        if claimed > elapsed_micros {
            return Err(format!(
                "the calls took {claimed:.0} us together, and the answer came after {elapsed_micros:.0} us"
            ));
        }
        Ok(())
    }
}

/// A text from outside in a message: without control characters, and not long.
pub fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(MOST).collect();
    if text.chars().count() > MOST {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        serde_json::from_str(
            r#"{"protocol": 1, "runtime": "made-up", "version": "1.0", "devices": ["cpu"], "dtypes": ["f32", "int8"]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_hello_has_what_is_wanted() {
        assert!(hello().check(Device::Cpu, Dtype::Int8).is_ok());
        let refused = |change: fn(&mut Hello)| {
            let mut hello = hello();
            change(&mut hello);
            hello.check(Device::Cpu, Dtype::F32).unwrap_err().to_string()
        };
        assert!(
            refused(|hello| hello.protocol = 2).contains("protocol 2, and this agent protocol 1")
        );
        assert!(
            refused(|hello| hello.runtime = "a b".into()).contains("its runtime is `a b`: 1 to 40")
        );
        assert!(refused(|hello| hello.version.clear()).contains("its version is ``"));
        assert!(
            refused(|hello| hello.devices = vec!["npu".into()])
                .contains("no device `cpu`, but: npu")
        );
        assert!(refused(|hello| hello.dtypes.truncate(0)).contains("no element type f32"));
        let many = |hello: &mut Hello| {
            hello.facts = (0..21).map(|i| (i.to_string(), String::new())).collect();
        };
        assert!(refused(many).contains("its facts"));
    }

    #[test]
    fn impossible_times_are_noticed() {
        let sampled =
            |micros: &[f64]| Sampled { micros: micros.to_vec(), calls: 1, ..Sampled::default() };
        assert_eq!(sampled(&[1.0, 2.0]).check(2, 100.0), Ok(()));
        for (sampled, problem) in [
            (sampled(&[1.0]), "1 times came for 2 samples"),
            (sampled(&[1.0, 0.0]), "0 us is no time of a call"),
            (sampled(&[1.0, -2.0]), "-2 us is no time of a call"),
            (sampled(&[f64::NAN, 1.0]), "NaN us is no time of a call"),
            (
                sampled(&[60.0, 60.0]),
                "the calls took 120 us together, and the answer came after 100 us",
            ),
            (Sampled { calls: 80, ..sampled(&[1.0, 1.0]) }, "took 160 us together"),
            (Sampled { calls: 0, ..sampled(&[1.0, 1.0]) }, "calls is 0"),
            (Sampled { preempted: vec![true], ..sampled(&[1.0, 1.0]) }, "preempted has 1 entries"),
            (Sampled { host_micros: vec![1.0, f64::INFINITY], ..sampled(&[1.0, 1.0]) }, "inf us"),
        ] {
            let said = sampled.check(2, 100.0).unwrap_err();
            assert!(said.contains(problem), "{said}");
        }
    }

    #[test]
    fn requests_have_the_documented_form() {
        let text = |request: Request| serde_json::to_string(&request).unwrap();
        assert_eq!(
            text(Request::Sample { id: 7, samples: 8, reuse_distance_bytes: 8_388_608 }),
            r#"{"sample":{"id":7,"samples":8,"reuse_distance_bytes":8388608}}"#
        );
        let start = Request::Start {
            device: Device::Cuda(1),
            dtype: Dtype::Int8,
            threads: 2,
            largest_reuse_distance_bytes: 64,
            smallest: "/tmp/s.onnx",
        };
        assert_eq!(
            text(start),
            r#"{"start":{"device":"cuda:1","dtype":"int8","threads":2,"largest_reuse_distance_bytes":64,"smallest":"/tmp/s.onnx"}}"#
        );
        let reply: Reply = serde_json::from_str(r#"{"prepared": {}}"#).unwrap();
        assert_eq!(reply, Reply::Prepared {});
    }

    #[test]
    fn a_text_from_outside_is_cut_and_cleaned() {
        assert_eq!(shown("a\u{1b}[31m\nb"), "a[31mb");
        assert_eq!(shown(&"x".repeat(300)).len(), 203);
    }
}
