//! Numbers of a space that depend on its choices: `24*width`, `c_in/2`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::Invalid;
use crate::error::shown;
use crate::primitive::divisible_fraction;
use crate::size::fraction;

/// The most factors of a product.
const MAX_FACTORS: usize = 4;

/// The largest numerator and denominator: products of two still fit into 128 bits, and no size is near it.
const MAX_PART: u128 = 1 << 48;

/// A fraction that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    pub(super) const ONE: Ratio = Ratio { numerator: 1, denominator: 1 };

    pub(super) fn of(n: u32) -> Ratio {
        Ratio { numerator: u64::from(n), denominator: 1 }
    }

    /// A decimal of at most four digits after the point.
    pub(super) fn decimal(text: &str) -> Option<Ratio> {
        let (numerator, denominator) = fraction(text)?;
        Ratio::lowest(u128::from(numerator), u128::from(denominator))
    }

    /// The fraction in lowest terms; none if it is too large.
    fn lowest(numerator: u128, denominator: u128) -> Option<Ratio> {
        let (mut a, mut b) = (numerator, denominator);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        let part =
            |n: u128| u64::try_from(n / a.max(1)).ok().filter(|&n| u128::from(n) <= MAX_PART);
        Some(Ratio { numerator: part(numerator)?, denominator: part(denominator)? })
    }

    fn times(self, other: Ratio) -> Option<Ratio> {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let numerator = product(self.numerator, other.numerator);
        Ratio::lowest(numerator, product(self.denominator, other.denominator))
    }

    pub(super) fn compare(&self, other: &Ratio) -> std::cmp::Ordering {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let (left, right) = (self.numerator, other.numerator);
        product(left, other.denominator).cmp(&product(right, self.denominator))
    }

    fn whole(self) -> Option<u32> {
        let whole = self.numerator.is_multiple_of(self.denominator);
        whole.then(|| self.numerator / self.denominator).and_then(|n| u32::try_from(n).ok())
    }

    fn ceiling(self) -> u32 {
        u32::try_from(self.numerator.div_ceil(self.denominator)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.numerator as f64 / self.denominator as f64)
    }
}

/// A product as it is written: a number, a name, `24*width`, `c_in/2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Amount {
    factor: Ratio,
    names: Vec<String>,
}

impl Amount {
    /// The same with every name looked up.
    pub(super) fn resolve<E>(
        &self,
        mut find: impl FnMut(&str) -> Result<Factor, E>,
    ) -> Result<Term, E> {
        let mut term = Term { factor: self.factor, factors: Vec::new(), text: self.to_string() };
        for name in &self.names {
            term.factors.push(find(name)?);
        }
        Ok(term)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return write!(f, "{}", self.factor);
        }
        if self.factor != Ratio::ONE {
            write!(f, "{}*", self.factor)?;
        }
        f.write_str(&self.names.join("*"))
    }
}

/// Whether a text can be the name of a choice.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphabetic()) && text.len() <= 40 && text.bytes().all(plain)
}

impl FromStr for Amount {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Amount, Invalid> {
        let malformed = || {
            Invalid::here(format!(
                "`{}` is no amount: write a number, the name of a choice, `c_in`, or a product such as \
                 `24*width` or `c_in/2`",
                shown(text)
            ))
        };
        let (product, divisor) = match text.split_once('/') {
            Some((product, divisor)) => {
                (product, divisor.trim().parse::<u32>().map_err(|_| malformed())?)
            }
            None => (text, 1),
        };
        let mut amount = Amount { factor: Ratio::ONE, names: Vec::new() };
        let mut divided = Ratio { numerator: 1, denominator: u64::from(divisor) };
        if divisor == 0 || product.split('*').count() > MAX_FACTORS {
            return Err(malformed());
        }
        for part in product.split('*').map(str::trim) {
            if is_name(part) {
                amount.names.push(part.to_owned());
            } else {
                let number = Ratio::decimal(part).ok_or_else(malformed)?;
                divided = divided.times(number).ok_or_else(malformed)?;
            }
        }
        amount.factor = divided;
        if amount.factor.numerator == 0 {
            return Err(malformed());
        }
        Ok(amount)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        struct AmountVisitor;
        impl<'de> Visitor<'de> for AmountVisitor {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a product such as `24*width`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Amount, A::Error> {
                let problem = "is a list, and one amount should stand here: a list of values is a choice, \
                               under `choices`";
                Err(de::Error::custom(problem))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Amount, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Amount, E> {
                Err(E::custom(format!("{n} is negative")))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Amount, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(AmountVisitor)
    }
}

/// A factor of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    /// The value of a choice of this option alone.
    Known(Ratio),
    /// The value of a choice, by its index.
    Choice(usize),
    /// Channels of what is read.
    CIn,
    /// Output channels of the stage.
    COut,
    /// Stride of the block.
    Stride,
}

/// A product with every name looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    factor: Ratio,
    factors: Vec<Factor>,
    text: String,
}

/// What the factors of a term are worth at one place of a network.
pub(super) struct Values<'a> {
    /// Values of the choices; none for one that is not a number.
    pub(super) choice: &'a dyn Fn(usize) -> Option<Ratio>,
    pub(super) c_in: u32,
    pub(super) c_out: u32,
    pub(super) stride: u32,
}

impl Term {
    /// A number.
    pub(super) fn number(n: u32) -> Term {
        Term { factor: Ratio::of(n), factors: vec![], text: n.to_string() }
    }

    /// Whether it depends on the channels of the stage.
    pub(super) fn mentions_c_out(&self) -> bool {
        self.factors.contains(&Factor::COut)
    }

    /// The choices that it depends on.
    pub(super) fn choices(&self) -> impl Iterator<Item = usize> {
        self.factors.iter().filter_map(|factor| match factor {
            Factor::Choice(index) => Some(*index),
            _ => None,
        })
    }

    fn value(&self, at: &Values<'_>) -> Result<Ratio, Invalid> {
        let mut value = self.factor;
        for factor in &self.factors {
            let factor = match *factor {
                Factor::Known(value) => Some(value),
                Factor::Choice(index) => (at.choice)(index),
                Factor::CIn => Some(Ratio::of(at.c_in)),
                Factor::COut => Some(Ratio::of(at.c_out)),
                Factor::Stride => Some(Ratio::of(at.stride)),
            };
            let product = factor.and_then(|factor| value.times(factor));
            value = product.ok_or_else(|| {
                let problem = "has a value here that is no number, or is far too large";
                Invalid::here(format!("`{}` {problem}", self.text))
            })?;
        }
        Ok(value)
    }

    /// A whole number of at least 1.
    pub(super) fn whole(&self, at: &Values<'_>) -> Result<u32, Invalid> {
        let value = self.value(at)?;
        value.whole().filter(|&n| n > 0).ok_or_else(|| {
            let problem = format!("`{}` comes to {value}; a whole number is needed", self.text);
            Invalid::here(problem)
        })
    }

    /// A number of channels. With a divisor, a product with a choice is rounded as MobileNet rounds its widths.
    pub(super) fn channels(&self, divisor: Option<u32>, at: &Values<'_>) -> Result<u32, Invalid> {
        let chosen = |factor: &Factor| matches!(factor, Factor::Choice(_) | Factor::Known(_));
        let scaled = self.factors.iter().any(chosen)
            && (self.factors.len() > 1 || self.factor != Ratio::ONE);
        match divisor {
            Some(divisor) if scaled => {
                let Ratio { numerator, denominator } = self.value(at)?;
                Ok(divisible_fraction(numerator, denominator, divisor))
            }
            _ => self.whole(at),
        }
    }

    /// A number of blocks, rounded up, as EfficientNet rounds its depths.
    pub(super) fn blocks(&self, at: &Values<'_>) -> Result<u32, Invalid> {
        Ok(self.value(at)?.ceiling())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(text: &str) -> Term {
        let find = |name: &str| {
            Ok::<_, ()>(match name {
                "c_in" => Factor::CIn,
                "width" => Factor::Choice(0),
                _ => Factor::Choice(1),
            })
        };
        text.parse::<Amount>().unwrap().resolve(find).unwrap()
    }

    fn at(width: &'static str) -> impl Fn(usize) -> Option<Ratio> {
        move |index| Ratio::decimal(if index == 0 { width } else { "1.2" })
    }

    #[test]
    fn widths_are_rounded_and_depths_are_rounded_up() {
        for (width, base, channels) in [
            ("0.5", 24, 16),
            ("0.75", 24, 24),
            ("0.75", 112, 88),
            ("1", 112, 112),
            ("1.2", 16, 24),
            ("0.35", 16, 8),
        ] {
            let choice = at(width);
            let values = Values { choice: &choice, c_in: 8, c_out: 8, stride: 1 };
            let term = term(&format!("{base}*width"));
            assert_eq!(term.channels(Some(8), &values), Ok(channels), "{base} * {width}");
        }
        let choice = at("1");
        let values = Values { choice: &choice, c_in: 8, c_out: 8, stride: 1 };
        for (text, blocks) in [("1*depth", 2), ("2*depth", 3), ("4*depth", 5), ("5*depth", 6)] {
            assert_eq!(term(text).blocks(&values), Ok(blocks), "{text}");
        }
    }

    #[test]
    fn other_amounts_are_exact() {
        let choice = at("3");
        let values = Values { choice: &choice, c_in: 20, c_out: 8, stride: 1 };
        assert_eq!(term("2.5*c_in").whole(&values), Ok(50));
        assert_eq!(term("c_in/4").channels(Some(8), &values), Ok(5));
        assert_eq!(term("width").channels(Some(8), &values), Ok(3));
        assert_eq!(term("64*width").channels(None, &values), Ok(192));
        let error = term("c_in/3").whole(&values).unwrap_err().to_string();
        assert!(error.contains("`0.3333333333333333*c_in` comes to 6.66"), "{error}");
        assert_eq!(term("width*c_in*c_in*c_in").channels(None, &values), Ok(24_000));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "*",
            "24*",
            "24**width",
            "-1",
            "0",
            "0*width",
            "a/0",
            "a/b",
            "1/2/3",
            "2 3",
            "1.23456",
            "99999999999",
            "a*b*c*d*e",
            "24x",
            "2^3",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }
}
