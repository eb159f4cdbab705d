//! Shapes and op keys: the identity of a row, in one canonical string.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::Invalid;
use crate::error::shown;

/// The shape that an op is measured at.
///
/// For an op whose input is a sequence of tokens, `input_h` is its length and `input_w` is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Number of inputs processed at once.
    pub batch: u32,
    /// Height of the input map.
    pub input_h: u32,
    /// Width of the input map.
    pub input_w: u32,
    /// Channels of the input.
    pub channels_in: u32,
    /// Channels of the output.
    pub channels_out: u32,
    /// Stride of the op; 1 for an op that has none.
    pub stride: u32,
}

impl Shape {
    /// The largest batch. These bounds are generous for any real network, and small enough that the number of elements
    /// of any tensor fits into 64 bits.
    pub const MAX_BATCH: u32 = 1 << 12;
    /// The largest height, width and stride.
    pub const MAX_EXTENT: u32 = 1 << 14;
    /// The most channels.
    pub const MAX_CHANNELS: u32 = 1 << 16;

    const LIMITS: [(&'static str, u32); 6] = [
        ("batch", Self::MAX_BATCH),
        ("input_h", Self::MAX_EXTENT),
        ("input_w", Self::MAX_EXTENT),
        ("channels_in", Self::MAX_CHANNELS),
        ("channels_out", Self::MAX_CHANNELS),
        ("stride", Self::MAX_EXTENT),
    ];

    fn fields(&self) -> [u32; 6] {
        [self.batch, self.input_h, self.input_w, self.channels_in, self.channels_out, self.stride]
    }

    /// Checks the rules of every op: sizes are positive and within limits, and the stride is not larger than the input.
    ///
    /// # Errors
    /// Names the field and its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        for ((name, limit), value) in Self::LIMITS.into_iter().zip(self.fields()) {
            if !(1..=limit).contains(&value) {
                return Err(Invalid::here(format!(
                    "{name} is {value}; it lies between 1 and {limit}"
                )));
            }
        }
        if self.stride > self.input_h || self.stride > self.input_w {
            return Err(Invalid::here(format!(
                "stride {} is larger than the input of {}x{}",
                self.stride, self.input_h, self.input_w
            )));
        }
        Ok(())
    }
}

/// The part of an op key after the colon.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [n, h, w, i, o, s] = self.fields();
        write!(f, "n{n}-h{h}-w{w}-i{i}-o{o}-s{s}")
    }
}

/// An op at a shape: the seed's primary key without the hardware.
///
/// The canonical string, e.g. `MBConv6_3x3:n1-h56-w56-i24-o24-s1`, needs no quotes in a shell, a URL path or a CSV
/// field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpKey {
    /// The op's name in the catalog.
    pub op: String,
    /// The shape at which it runs.
    pub shape: Shape,
}

impl fmt::Display for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.op, self.shape)
    }
}

/// Op names are used in keys, URLs and the seed's `VARCHAR(50)` column.
pub(crate) fn check_op_name(name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    if starts_well && name.len() <= 50 && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(Invalid::new(
        format!("op name `{}`", shown(name)),
        "a name is a letter, then letters, digits and `_`, at most 50 in all",
    ))
}

impl FromStr for OpKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fail = |problem: String| {
            Invalid::new(
                format!("op key `{}`", shown(text)),
                format!("{problem}; a key looks like `Conv3x3:n1-h56-w56-i32-o64-s1`"),
            )
        };
        let (op, shape) =
            text.split_once(':').ok_or_else(|| fail("there is no `:` after the op".into()))?;
        check_op_name(op)?;
        let mut values = [0u32; 6];
        let mut parts = shape.split('-');
        for (letter, value) in ["n", "h", "w", "i", "o", "s"].into_iter().zip(&mut values) {
            let digits = parts
                .next()
                .and_then(|part| part.strip_prefix(letter))
                .ok_or_else(|| fail(format!("`{letter}` is missing or out of order")))?;
            // One spelling for each key: no sign and no leading zero.
            let canonical = !digits.starts_with(['0', '+']);
            *value = digits.parse().ok().filter(|_| canonical).ok_or_else(|| {
                let digits = shown(digits);
                fail(match digits.trim_start_matches('0') {
                    plain if plain != digits && plain.parse::<u32>().is_ok() => {
                        format!("`{letter}{digits}` has a leading zero: write `{letter}{plain}`")
                    }
                    _ => format!("`{letter}{digits}` is not a positive number"),
                })
            })?;
        }
        if parts.next().is_some() {
            return Err(fail("there is something after the stride".into()));
        }
        let [batch, input_h, input_w, channels_in, channels_out, stride] = values;
        let shape = Shape { batch, input_h, input_w, channels_in, channels_out, stride };
        shape.check().map_err(|e| fail(e.problem))?;
        Ok(OpKey { op: op.to_owned(), shape })
    }
}

#[cfg(feature = "openapi")]
crate::openapi::text_schema!(OpKey, "An op at a shape, as `MBConv6_3x3:n1-h56-w56-i24-o24-s1`.");

impl Serialize for OpKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OpKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed_keys_say_what_is_wrong() {
        for (text, problem) in [
            ("Conv3x3", "there is no `:`"),
            ("Conv 3:n1-h5-w5-i3-o3-s1", "a name is a letter"),
            ("Conv3x3:n1-h56-w56-i32-o64", "`s` is missing"),
            ("Conv3x3:n1-w56-h56-i32-o64-s1", "`h` is missing or out of order"),
            ("Conv3x3:n1-h056-w56-i32-o64-s1", "`h056` has a leading zero: write `h56`"),
            ("Conv3x3:n1-h56-w56-i0-o64-s1", "`i0` is not a positive number"),
            ("Conv3x3:n1-h2-w2-i3-o3-s4", "stride 4 is larger than the input"),
            ("Conv3x3:n1-h2-w2-i3-o3-s1-x", "something after the stride"),
            ("Conv3x3:n1-h99999999999-w2-i3-o3-s1", "not a positive number"),
        ] {
            let error = text.parse::<OpKey>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_key_parses_back(
            op in "[A-Za-z][A-Za-z0-9_]{0,49}",
            batch in 1u32..=4096, h in 1u32..=16384, w in 1u32..=16384,
            i in 1u32..=65536, o in 1u32..=65536, s in 1u32..8,
        ) {
            let stride = s.min(h).min(w);
            let key = OpKey {
                op,
                shape: Shape { batch, input_h: h, input_w: w, channels_in: i, channels_out: o, stride },
            };
            prop_assert_eq!(key.to_string().parse::<OpKey>().unwrap(), key);
        }

        #[test]
        fn what_parses_is_canonical(text in "[A-C]{1,2}:n[0-9]{1,2}-h[0-9]{1,2}-w[0-9]{1,2}-i[0-9]{1,2}-o[0-9]{1,2}-s[1-2]") {
            if let Ok(key) = text.parse::<OpKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
