//! The parameters of primitives that are more than a number.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::windows::checked_padding;
use crate::Invalid;

/// The activation inside a squeeze-and-excite block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The function that turns a squeeze-and-excite block's output into a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// `1 / (1 + exp(-x))`.
    #[default]
    Sigmoid,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
}

/// How a map is made larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Each element is repeated.
    #[default]
    Nearest,
    /// Linear between the centres of elements (`align_corners=False`).
    Bilinear,
}

/// A dimension of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Channels of a map or of tokens.
    Channels,
    /// Height of a map.
    Height,
    /// Width of a map.
    Width,
    /// Length of a sequence.
    Tokens,
}

/// A size along the height and one along the width. One number stands for both, and `[h, w]` for two that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<S> {
    /// Along the height.
    pub h: S,
    /// Along the width.
    pub w: S,
}

impl<S: Copy> Pair<S> {
    /// The same size along both.
    pub const fn square(size: S) -> Pair<S> {
        Pair { h: size, w: size }
    }
}

impl<S> Pair<S> {
    /// Another pair, each part made from the old one.
    pub(super) fn with<T, E>(self, make: &mut impl FnMut(S) -> Result<T, E>) -> Result<Pair<T>, E> {
        Ok(Pair { h: make(self.h)?, w: make(self.w)? })
    }
}

impl Pair<u32> {
    /// Height and width.
    pub fn parts(self) -> [u32; 2] {
        [self.h, self.w]
    }
}

impl fmt::Display for Pair<u32> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.h == self.w { write!(f, "{}", self.h) } else { write!(f, "{}x{}", self.h, self.w) }
    }
}

impl<S: Serialize + PartialEq> Serialize for Pair<S> {
    fn serialize<R: Serializer>(&self, serializer: R) -> Result<R::Ok, R::Error> {
        match self.h == self.w {
            true => self.h.serialize(serializer),
            false => [&self.h, &self.w].serialize(serializer),
        }
    }
}

impl<'de, S: Deserialize<'de> + Copy> Deserialize<'de> for Pair<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match OneOrMore::<S>::deserialize(deserializer, "a size, or two in a list [height, width]")?
        {
            OneOrMore::One(size) => Ok(Pair::square(size)),
            OneOrMore::More(sizes) => match sizes[..] {
                [h, w] => Ok(Pair { h, w }),
                _ => Err(de::Error::custom(format!(
                    "is a list of {}; one size or a list [height, width] should stand here",
                    sizes.len()
                ))),
            },
            OneOrMore::Text(text) => {
                S::deserialize(IntoDeserializer::<D::Error>::into_deserializer(text.as_str()))
                    .map(Pair::square)
            }
        }
    }
}

/// The padding of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As much as it takes for an output of `ceil(size / stride)`, half of it on each side. An odd one out is at the
    /// bottom and at the right, as in TensorFlow, ONNX (`SAME_UPPER`) and `torch.nn.Conv2d(padding="same")`.
    Same,
    /// A number for each side.
    Sides(Sides),
}

/// The padding of each side of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    /// Above.
    pub top: u32,
    /// Below.
    pub bottom: u32,
    /// Before each row.
    pub left: u32,
    /// After each row.
    pub right: u32,
}

impl Sides {
    /// As much above as below, and as much at the left as at the right.
    pub(super) fn symmetric(h: u32, w: u32) -> Sides {
        Sides { top: h, bottom: h, left: w, right: w }
    }

    /// The padding along the height and along the width, if opposite sides have the same.
    pub fn as_symmetric(self) -> Option<[u32; 2]> {
        let Sides { top, bottom, left, right } = self;
        (top == bottom && left == right).then_some([top, left])
    }

    pub(super) fn checked(self) -> Result<Sides, Invalid> {
        let Sides { top, bottom, left, right } = self;
        for side in [top, bottom, left, right] {
            checked_padding(side.into())?;
        }
        Ok(self)
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sides { top, bottom, left, right } = self;
        match self.as_symmetric() {
            Some([h, w]) => Pair { h, w }.fmt(f),
            None => write!(f, "[{top}, {bottom}, {left}, {right}]"),
        }
    }
}

impl Padding {
    /// The number of each side. [`Padding::Same`] is resolved when an op is planned, so a plan has only numbers.
    pub fn sides(self) -> Sides {
        match self {
            Padding::Same => Sides::default(),
            Padding::Sides(sides) => sides,
        }
    }
}

impl Serialize for Padding {
    fn serialize<R: Serializer>(&self, serializer: R) -> Result<R::Ok, R::Error> {
        let Padding::Sides(sides) = *self else { return serializer.serialize_str("same") };
        match sides.as_symmetric() {
            Some([h, w]) => Pair { h, w }.serialize(serializer),
            None => [sides.top, sides.bottom, sides.left, sides.right].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Padding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORMS: &str = "a number, `same`, [height, width] or [top, bottom, left, right]";
        let sides = match OneOrMore::<u32>::deserialize(deserializer, FORMS)? {
            OneOrMore::One(all) => Sides::symmetric(all, all),
            OneOrMore::More(sides) => match sides[..] {
                [h, w] => Sides::symmetric(h, w),
                [top, bottom, left, right] => Sides { top, bottom, left, right },
                _ => {
                    return Err(de::Error::custom(format!(
                        "is a list of {}; {FORMS} should stand here",
                        sides.len()
                    )));
                }
            },
            OneOrMore::Text(text) if text == "same" => return Ok(Padding::Same),
            OneOrMore::Text(text) => {
                return Err(de::Error::invalid_value(de::Unexpected::Str(&text), &FORMS));
            }
        };
        Ok(Padding::Sides(sides))
    }
}

/// A value, a list of values, or a text, as a parameter is written.
enum OneOrMore<S> {
    One(S),
    More(Vec<S>),
    Text(String),
}

impl<S> OneOrMore<S> {
    fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        forms: &'static str,
    ) -> Result<OneOrMore<S>, D::Error>
    where
        S: Deserialize<'de>,
    {
        struct Forms<S>(&'static str, PhantomData<S>);
        impl<'de, S: Deserialize<'de>> Visitor<'de> for Forms<S> {
            type Value = OneOrMore<S>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<OneOrMore<S>, E> {
                S::deserialize(n.into_deserializer()).map(OneOrMore::One)
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<OneOrMore<S>, E> {
                match u64::try_from(n) {
                    Ok(n) => self.visit_u64(n),
                    Err(_) => Err(E::custom(format!("{n} is negative"))),
                }
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<OneOrMore<S>, E> {
                // Every whole number up to this size is exact.
                if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) {
                    return self.visit_u64(n as u64);
                }
                S::deserialize(n.into_deserializer()).map(OneOrMore::One)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore<S>, E> {
                Ok(OneOrMore::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<OneOrMore<S>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(OneOrMore::More)
            }
            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<OneOrMore<S>, A::Error> {
                // The words of the value itself fit best.
                S::deserialize(MapAccessDeserializer::new(fields)).map(OneOrMore::One)
            }
        }
        deserializer.deserialize_any(Forms::<S>(forms, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::Size;

    #[test]
    fn a_pair_is_written_as_short_as_it_can_be() {
        for (text, short) in [("3", "3"), ("[3, 3]", "3"), ("[1, 7]", "[1,7]"), ("3.0", "3")] {
            let pair: Pair<Size> = crate::text::read(text).unwrap();
            assert_eq!(serde_json::to_string(&pair).unwrap(), short, "{text}");
            let again: Pair<Size> = crate::text::read_json(short).unwrap();
            assert_eq!(again, pair);
        }
        let pair: Pair<Size> = crate::text::read("[c_in, 2*stride]").unwrap();
        assert_eq!(serde_json::to_string(&pair).unwrap(), "[\"c_in\",\"2*stride\"]");
        let pair: Pair<Size> = crate::text::read("stride").unwrap();
        assert_eq!(serde_json::to_string(&pair).unwrap(), "\"stride\"");
    }

    #[test]
    fn a_padding_is_written_as_short_as_it_can_be() {
        for (text, short) in [
            ("1", "1"),
            ("[1, 1]", "1"),
            ("[0, 3]", "[0,3]"),
            ("[1, 1, 2, 2]", "[1,2]"),
            ("[0, 1, 0, 1]", "[0,1,0,1]"),
            ("same", "\"same\""),
        ] {
            let padding: Padding = crate::text::read(text).unwrap();
            assert_eq!(serde_json::to_string(&padding).unwrap(), short, "{text}");
            let again: Padding = crate::text::read_json(short).unwrap();
            assert_eq!(again, padding);
        }
    }

    #[test]
    fn what_is_no_pair_and_no_padding_is_refused() {
        for (text, problem) in [
            ("[1, 2, 3]", "is a list of 3; one size or a list [height, width] should stand here"),
            ("[]", "is a list of 0"),
            ("-1", "-1 is negative"),
            ("1.5", "1.5 is not a whole number"),
            ("032", "leading zero, which some programs read as octal: write 32"),
            ("c_mid", "is not a size"),
            ("[1, c_mid]", "[1]: `c_mid` is not a size"),
            ("{}", "is an object"),
        ] {
            let error = crate::text::read::<Pair<Size>>(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        for (text, problem) in [
            ("[1, 2, 3]", "is a list of 3; a number, `same`, [height, width] or [top, bottom,"),
            ("valid", "is the text \"valid\"; a number, `same`"),
            ("-1", "-1 is negative"),
            ("1.5", "is `1.5`"),
        ] {
            let error = crate::text::read::<Padding>(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
