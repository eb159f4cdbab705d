//! Sizes inside an op definition: a number, or a simple multiple of one of the op's variables.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::Invalid;
use crate::error::shown;
use crate::key::Shape;

/// The largest size in a definition, so that a hostile or mistyped definition cannot allocate memory without bound.
pub const MAX_SIZE: u32 = 1 << 20;

/// A variable of the shape of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// Channels of the op's input.
    CIn,
    /// Channels of the op's output.
    COut,
    /// The op's stride.
    Stride,
}

impl Variable {
    const ALL: [(Variable, &'static str); 3] =
        [(Variable::CIn, "c_in"), (Variable::COut, "c_out"), (Variable::Stride, "stride")];

    fn name(self) -> &'static str {
        match self {
            Variable::CIn => "c_in",
            Variable::COut => "c_out",
            Variable::Stride => "stride",
        }
    }

    fn value(self, shape: &Shape) -> u32 {
        match self {
            Variable::CIn => shape.channels_in,
            Variable::COut => shape.channels_out,
            Variable::Stride => shape.stride,
        }
    }
}

/// `16`, `c_out`, `6*c_in`, `2.5*c_in` or `c_in/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// A plain number.
    Number(u32),
    /// `variable * numerator / denominator`, in lowest terms; a result that is not whole is an error.
    Multiple {
        /// The variable that is scaled.
        variable: Variable,
        /// Numerator of the factor, at least 1.
        numerator: u32,
        /// Denominator of the factor, at least 1.
        denominator: u32,
    },
}

impl Size {
    /// The variable alone.
    pub const fn of(variable: Variable) -> Size {
        Size::Multiple { variable, numerator: 1, denominator: 1 }
    }

    /// Whether the size changes with `variable`.
    pub fn mentions(&self, variable: Variable) -> bool {
        matches!(self, Size::Multiple { variable: v, .. } if *v == variable)
    }

    /// The size at one shape.
    ///
    /// # Errors
    /// When the product is not a whole number, is zero, or is larger than [`MAX_SIZE`].
    pub fn at(&self, shape: &Shape) -> Result<u32, Invalid> {
        let value = match *self {
            Size::Number(n) => u64::from(n),
            Size::Multiple { variable, numerator, denominator } => {
                let base = variable.value(shape);
                let product = u64::from(base) * u64::from(numerator);
                if !product.is_multiple_of(u64::from(denominator)) {
                    return Err(Invalid::here(format!(
                        "`{self}` is not a whole number when {} is {base}",
                        variable.name()
                    )));
                }
                product / u64::from(denominator)
            }
        };
        match u32::try_from(value) {
            Ok(v) if (1..=MAX_SIZE).contains(&v) => Ok(v),
            _ => Err(Invalid::here(format!(
                "`{self}` comes to {value}; sizes lie between 1 and {MAX_SIZE}"
            ))),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Size::Number(n) => write!(f, "{n}"),
            Size::Multiple { variable, numerator, denominator } => {
                if numerator != 1 {
                    write!(f, "{numerator}*")?;
                }
                f.write_str(variable.name())?;
                if denominator != 1 {
                    write!(f, "/{denominator}")?;
                }
                Ok(())
            }
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A number of digits only; the standard parser also accepts a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A decimal such as `2.5`, of at most 4 digits after the point, as a fraction.
pub(crate) fn fraction(text: &str) -> Option<(u32, u32)> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || digits.len() > 4 || (text.contains('.') && digits.is_empty()) {
        return None;
    }
    let denominator = 10u32.pow(u32::try_from(digits.len()).ok()?);
    Some((number(&format!("{whole}{digits}"))?, denominator))
}

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || {
            Invalid::here(format!(
                "`{}` is not a size: write a number, or a multiple of c_in, c_out or \
                     stride such as `c_out`, `6*c_in`, `2.5*c_in` or `c_in/4`",
                shown(text)
            ))
        };
        if let Some(n) = number(text.trim()) {
            if text.trim().len() > 1 && text.trim().starts_with('0') {
                return Err(Invalid::here(format!(
                    "`{}` has a leading zero, which some programs read as octal: write {n}",
                    text.trim()
                )));
            }
            return Ok(Size::Number(n));
        }
        let (factor, rest) = match text.split_once('*') {
            Some((factor, rest)) => (fraction(factor.trim()).ok_or_else(malformed)?, rest.trim()),
            None => ((1, 1), text.trim()),
        };
        let (name, divisor) = match rest.split_once('/') {
            Some((name, divisor)) => {
                (name.trim_end(), number(divisor.trim_start()).ok_or_else(malformed)?)
            }
            None => (rest, 1),
        };
        let (variable, _) =
            Variable::ALL.into_iter().find(|(_, n)| *n == name).ok_or_else(malformed)?;
        let denominator = factor.1.checked_mul(divisor).ok_or_else(malformed)?;
        if factor.0 == 0 || denominator == 0 {
            return Err(malformed());
        }
        let common = gcd(factor.0, denominator);
        Ok(Size::Multiple {
            variable,
            numerator: factor.0 / common,
            denominator: denominator / common,
        })
    }
}

#[cfg(feature = "openapi")]
crate::openapi::either_schema!(Size, u32, String, "A number, or a multiple such as `6*c_in`.");

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Size::Number(n) => serializer.serialize_u32(*n),
            Size::Multiple { .. } => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl<'de> Visitor<'de> for SizeVisitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a multiple of c_in, c_out or stride such as `6*c_in`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Size, A::Error> {
                Err(de::Error::custom("is a list, and one size should stand here"))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Size, E> {
                u32::try_from(n)
                    .map(Size::Number)
                    .map_err(|_| E::custom(format!("{n} is too large for a size")))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
                u64::try_from(n)
                    .map_err(|_| E::custom(format!("{n} is negative, and a size is at least 1")))
                    .and_then(|n| self.visit_u64(n))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Size, E> {
                // Every whole number up to this size is exact.
                if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) {
                    return Ok(Size::Number(n as u32));
                }
                let problem = "is not a whole number, nor a multiple such as `2.5*c_in`";
                Err(E::custom(format!("{n} {problem}")))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(c_in: u32) -> Shape {
        Shape { batch: 1, input_h: 8, input_w: 8, channels_in: c_in, channels_out: 24, stride: 2 }
    }

    #[test]
    fn sizes_are_numbers_or_simple_multiples() {
        for (text, expected) in [
            ("16", 16),
            ("c_in", 80),
            ("6*c_in", 480),
            ("2.3*c_in", 184),
            ("c_in/4", 20),
            ("3 * c_out", 72),
            ("stride", 2),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().at(&shape(80)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_not_whole_is_refused() {
        let error = "2.5*c_in".parse::<Size>().unwrap().at(&shape(3)).unwrap_err();
        assert_eq!(error.to_string(), "`5*c_in/2` is not a whole number when c_in is 3");
    }

    #[test]
    fn a_size_of_nothing_or_of_too_much_is_refused() {
        for text in ["0", "c_in/80", "1048577", "4000000000*c_in"] {
            let at_zero = text.parse::<Size>().unwrap().at(&Shape { channels_in: 0, ..shape(80) });
            let large = text.parse::<Size>().unwrap().at(&shape(80));
            assert!(at_zero.is_err() || large.is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_come_from_yaml_numbers_and_strings() {
        let sizes: Vec<Size> =
            crate::text::read("[16, '16', 8.0, 1e1, c_in, 6*c_in, c_in / 4]").unwrap();
        let printed: Vec<String> = sizes.iter().map(Size::to_string).collect();
        assert_eq!(printed, ["16", "16", "8", "10", "c_in", "6*c_in", "c_in/4"]);
        for (text, problem) in [
            ("-1", "negative"),
            ("2.5", "2.5 is not a whole number, nor a multiple"),
            ("[1, 7]", "is a list, and one size should stand here"),
            ("032", "leading zero, which some programs read as octal: write 32"),
            ("5000000000", "too large for a size"),
            ("true", "is `true`; a number, or a multiple of c_in"),
            ("c_mid", "is not a size"),
        ] {
            let error = crate::text::read::<Size>(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "c_mid",
            "6c_in",
            "*c_in",
            "c_in/0",
            "0*c_in",
            "1.*c_in",
            "-3",
            "+3",
            "1 6",
            "c_ in",
            "c_in/c_out",
            "c_in/-2",
            "c_in*6",
            "2*c_in*c_in",
            "99999999999",
            "1.00001*c_in",
            "500000.0001*c_in",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_size_parses_back(numerator in 1u32..5000, denominator in 1u32..5000, which in 0usize..3) {
            let text = format!("{numerator}*{}/{denominator}", Variable::ALL[which].1);
            let size: Size = text.parse().unwrap();
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
    }
}
