//! The samples behind a measurement, small enough to keep for ever. They allow other statistics later.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// The samples of one visit, in microseconds.
pub type Visit = Vec<f64>;

/// All samples of a measurement, in the order of visits; microseconds of one call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// By reuse distance in bytes; on a GPU, the device's times.
    pub micros: BTreeMap<u64, Vec<Visit>>,
    /// The host's times for issuing a call, over all reuse distances. Empty where issuing and running are one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_micros: Vec<Visit>,
}

/// The most bytes that packed samples may unpack to: far more than any measurement needs.
const MOST_BYTES: u64 = 64 << 20;

/// Why packed samples cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// The text is not Base64.
    #[error("packed samples are not Base64")]
    Base64(#[from] base64::DecodeError),
    /// The bytes are not gzip, or are truncated.
    #[error("packed samples are not gzip")]
    Gzip(#[from] std::io::Error),
    /// The JSON inside has another form.
    #[error("packed samples are not samples as JSON")]
    Json(#[from] serde_json::Error),
}

/// Base64 of the gzip of JSON: `{"micros": {"8388608": [[101.25, 99.5], [100.75]]}}`, to the nanosecond.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn pack(samples: &Samples) -> String {
    let nearest = |micros: &f64| (micros * 1e3).round() / 1e3;
    let round = |visits: &Vec<Visit>| -> Vec<Visit> {
        visits.iter().map(|visit| visit.iter().map(nearest).collect()).collect()
    };
    let rounded = Samples {
        micros: samples
            .micros
            .iter()
            .map(|(&distance, visits)| (distance, round(visits)))
            .collect(),
        host_micros: round(&samples.host_micros),
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let text = serde_json::to_vec(&rounded).expect("plain data serializes to JSON");
    gzip.write_all(&text).expect("memory takes it");
    STANDARD.encode(gzip.finish().expect("memory takes it"))
}

/// The gzip inside of packed samples, which the coordinator stores.
///
/// # Errors
/// When the text is not Base64.
pub fn bytes(text: &str) -> Result<Vec<u8>, SamplesError> {
    Ok(STANDARD.decode(text)?)
}

/// The samples that [`pack`] has packed.
///
/// # Errors
/// When the text was not made by [`pack`].
pub fn unpack(text: &str) -> Result<Samples, SamplesError> {
    let bytes = bytes(text)?;
    let mut json = Vec::new();
    GzDecoder::new(bytes.as_slice()).take(MOST_BYTES).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn visits() -> impl Strategy<Value = Vec<Visit>> {
        prop::collection::vec(prop::collection::vec(0.001f64..1e7, 0..10), 0..10)
    }

    fn all(samples: &Samples) -> impl Iterator<Item = &f64> {
        samples.micros.values().chain([&samples.host_micros]).flatten().flatten()
    }

    proptest! {
        #[test]
        fn packing_loses_less_than_a_nanosecond(
            micros in prop::collection::btree_map(0u64..1 << 27, visits(), 0..8),
            host_micros in visits(),
        ) {
            let samples = Samples { micros, host_micros };
            let back = unpack(&pack(&samples)).unwrap();
            prop_assert!(back.micros.keys().eq(samples.micros.keys()));
            prop_assert_eq!(all(&samples).count(), all(&back).count());
            for (a, b) in all(&samples).zip(all(&back)) {
                prop_assert!((a - b).abs() <= 0.000_501);
            }
        }

        #[test]
        fn nonsense_is_an_error(text in ".{0,100}") {
            prop_assert!(unpack(&text).is_err());
        }
    }
}
