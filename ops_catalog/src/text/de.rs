//! From a tree to values. All error messages are this project's own.

mod access;
mod refused;

use serde::de::{self, Deserializer, Expected, Visitor};

use self::access::{Fields, List, Named};
pub(super) use self::refused::Refused;
use self::refused::{mismatch, of};
use super::number;
use super::tree::{Style, Tree, Value};
use super::words::wanted;
use crate::error::shown;

/// serde_json's name of the type that keeps a value's text.
const AS_WRITTEN: &str = "$serde_json::private::RawValue";

/// A value of a tree, for reading.
pub(super) struct Reader<'a> {
    tree: &'a Tree,
    top: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a Tree) -> Reader<'a> {
        Reader { tree, top: true }
    }

    /// The error for a value of another kind.
    fn other<T>(&self, expected: &dyn Expected) -> Result<T, Refused> {
        let mut problem = mismatch(&self.tree.described(), expected);
        if let Value::Scalar(style, text) = &self.tree.value {
            let want = expected.to_string();
            if *style == Style::Quoted && number::is_number(text) && !want.starts_with("struct") {
                problem.problem.push_str(": write it without quotes");
            } else if *style == Style::Bare && want == "a string" && !self.tree.is_null() {
                problem.problem.push_str(", in double quotes");
            } else if self.top && text.contains('=') && !text.contains(':') {
                problem.problem.push_str(" (this looks like TOML; YAML and JSON are read)");
            }
        }
        Err(problem.from(self.tree.at))
    }

    fn whole<T: TryFrom<i128>>(
        &self,
        least: i128,
        most: i128,
        expected: &dyn Expected,
    ) -> Result<T, Refused> {
        let text = match &self.tree.value {
            Value::Scalar(Style::Plain | Style::Bare, text) if !self.tree.is_null() => text,
            _ => return self.other(expected),
        };
        let refused = |problem: String| {
            Refused::new(format!("{problem}; {} should stand here", of(expected)))
                .from(self.tree.at)
        };
        if !number::is_number(text) {
            return self.other(expected);
        }
        let n = number::whole(text).map_err(|e| refused(e.to_string()))?;
        T::try_from(n).ok().filter(|_| (least..=most).contains(&n)).ok_or_else(|| {
            refused(match n {
                n if n < 0 && least == 0 => format!("{n} is negative"),
                n => format!("{n} is too large, the most is {most}"),
            })
        })
    }

    fn list<V: Visitor<'a>>(&self, items: &'a [Tree], visitor: V) -> Result<V::Value, Refused> {
        let mut list = List { items: items.iter(), index: 0 };
        let value = visitor.visit_seq(&mut list)?;
        match list.items.len() {
            0 => Ok(value),
            _ => Err(Refused::new(format!(
                "has {} entries, and should have {}",
                items.len(),
                list.index
            ))),
        }
    }

    /// A scalar whose kind depends on its spelling.
    fn scalar<V: Visitor<'a>>(
        &self,
        style: Style,
        text: &'a str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if style == Style::Quoted {
            return visitor.visit_str(text);
        }
        if self.tree.is_null() {
            return visitor.visit_unit();
        }
        match text {
            "true" | "True" | "TRUE" => return visitor.visit_bool(true),
            "false" | "False" | "FALSE" => return visitor.visit_bool(false),
            _ => {}
        }
        let written_whole = !text.contains(['.', 'e', 'E']) || text.starts_with("0x");
        if number::is_number(text)
            && written_whole
            && let Ok(n) = number::whole(text)
        {
            if let Ok(n) = u64::try_from(n) {
                return visitor.visit_u64(n);
            }
            if let Ok(n) = i64::try_from(n) {
                return visitor.visit_i64(n);
            }
        }
        match number::real(text) {
            Ok(n) => visitor.visit_f64(n),
            Err(_) => visitor.visit_str(text),
        }
    }
}

macro_rules! whole {
    ($($method:ident $visit:ident $type:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let n = self.whole::<$type>(<$type>::MIN as i128, <$type>::MAX as i128, &visitor)?;
            visitor.$visit(n).map_err(|e: Refused| e.from(self.tree.at))
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Refused;

    whole!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.tree.value {
            Value::Scalar(style, text) => self.scalar(*style, text, visitor),
            Value::List(items) => self.list(items, visitor),
            Value::Map(fields) => visitor.visit_map(Fields::new(fields)),
        }
        .map_err(|e| e.from(self.tree.at))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let value = match &self.tree.value {
            Value::Scalar(Style::Plain, text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            Value::Scalar(Style::Bare, text) => text.parse().ok(),
            _ => None,
        };
        match value {
            Some(value) => visitor.visit_bool(value),
            None => self.other(&visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.tree.value {
            Value::Scalar(Style::Plain | Style::Bare, text) if !self.tree.is_null() => {
                match number::real(text) {
                    Ok(n) => visitor.visit_f64(n).map_err(|e: Refused| e.from(self.tree.at)),
                    Err(_) if !number::is_number(text) => self.other(&visitor),
                    Err(problem) => Err(Refused::at(self.tree.at, problem.to_string())),
                }
            }
            _ => self.other(&visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let text = match &self.tree.value {
            Value::Scalar(Style::Quoted, text) => text,
            Value::Scalar(Style::Plain, text) if !self.tree.is_null() => text,
            _ => return self.other(&visitor),
        };
        let name = visitor_name(&visitor);
        visitor.visit_str(text).map_err(|error: Refused| {
            // A type of a library has its own error messages; its name shows what it accepts.
            let words = wanted(&name);
            let foreign = words != name && words != "a text";
            let error = match foreign {
                true => Refused::new(format!("`{}` is not {words}", shown(text))),
                false => error,
            };
            error.from(self.tree.at)
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.tree.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.tree.is_null() { visitor.visit_unit() } else { self.other(&visitor) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if name == AS_WRITTEN {
            let value = std::iter::once((AS_WRITTEN, self.tree.to_string()));
            return visitor.visit_map(de::value::MapDeserializer::new(value));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.tree.value {
            Value::List(items) => self.list(items, visitor).map_err(|e| e.from(self.tree.at)),
            _ => self.other(&visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.tree.value {
            Value::Map(fields) => {
                visitor.visit_map(Fields::new(fields)).map_err(|e| e.from(self.tree.at))
            }
            _ => self.other(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let (at, name, value) = match &self.tree.value {
            Value::Scalar(Style::Quoted | Style::Plain, name) if !self.tree.is_null() => {
                (self.tree.at, name, None)
            }
            Value::Map(fields) => match fields.as_slice() {
                [(key, value)] => (key.at, &key.text, Some(value)),
                _ => {
                    let problem = "one name should stand here, with its fields: `name: {...}`";
                    return Err(Refused::at(self.tree.at, problem));
                }
            },
            _ => return self.other(&"variant identifier"),
        };
        visitor.visit_enum(Named { at, name, value }).map_err(|e| e.from(at))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }
}

/// The name that a visitor gives itself.
fn visitor_name<'de, V: Visitor<'de>>(visitor: &V) -> String {
    (visitor as &dyn Expected).to_string()
}
