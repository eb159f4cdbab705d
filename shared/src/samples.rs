//! The samples behind a measurement, small enough to keep for ever. They allow other statistics later.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// The samples of one visit, in microseconds.
pub type Visit = Vec<f64>;

/// Samples by reuse distance in bytes, in the order of visits; microseconds of one call.
pub type Samples = BTreeMap<u64, Vec<Visit>>;

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

/// Base64 of the gzip of JSON: `{"8388608": [[101.25, 99.5], [100.75]]}`, to the nanosecond.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn pack(samples: &Samples) -> String {
    let rounded: Samples = samples
        .iter()
        .map(|(&distance, visits)| {
            let nearest = |micros: &f64| (micros * 1e3).round() / 1e3;
            (distance, visits.iter().map(|visit| visit.iter().map(nearest).collect()).collect())
        })
        .collect();
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

    proptest! {
        #[test]
        fn packing_loses_less_than_a_nanosecond(
            samples in prop::collection::btree_map(
                0u64..1 << 27,
                prop::collection::vec(prop::collection::vec(0.001f64..1e7, 0..10), 0..10),
                0..8,
            ),
        ) {
            let back = unpack(&pack(&samples)).unwrap();
            prop_assert_eq!(back.keys().collect::<Vec<_>>(), samples.keys().collect::<Vec<_>>());
            for (a, b) in samples.values().flatten().flatten().zip(back.values().flatten().flatten()) {
                prop_assert!((a - b).abs() <= 0.000_501);
            }
        }

        #[test]
        fn nonsense_is_an_error(text in ".{0,100}") {
            prop_assert!(unpack(&text).is_err());
        }
    }
}
