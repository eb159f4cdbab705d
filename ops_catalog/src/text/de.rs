//! A tree as values, with every refusal in the words of this project.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::number;
use super::tree::{Key, Mark, Style, Tree, Value};
use super::words::{names, wanted};
use crate::Invalid;
use crate::error::shown;

/// How serde_json names the type that holds a value as it was written.
const AS_WRITTEN: &str = "$serde_json::private::RawValue";

/// Why a text is not what it should be.
#[derive(Debug)]
pub(super) struct Refused {
    at: Option<Mark>,
    /// Fields and indices, innermost first.
    path: Vec<String>,
    problem: String,
}

impl Refused {
    pub(super) fn at(at: Mark, problem: impl Into<String>) -> Refused {
        Refused { at: Some(at), path: vec![], problem: problem.into() }
    }

    fn new(problem: impl Into<String>) -> Refused {
        Refused { at: None, path: vec![], problem: problem.into() }
    }

    /// The same, seen from where the value stands.
    fn from(mut self, at: Mark) -> Refused {
        self.at.get_or_insert(at);
        self
    }

    fn inside(mut self, segment: String) -> Refused {
        self.path.push(segment);
        self
    }

    /// With its place as people count.
    pub(super) fn invalid(self, one_line: bool) -> Invalid {
        let mut path = String::new();
        for segment in self.path.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        let place = match self.at {
            Some(Mark { line: 0, .. }) | None => String::new(),
            Some(Mark { column, line: 1 }) if one_line => format!("column {column}"),
            Some(Mark { line, column }) => format!("line {line}, column {column}"),
        };
        let place = [place, path].into_iter().filter(|part| !part.is_empty());
        Invalid::new(place.collect::<Vec<_>>().join(", "), self.problem)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(problem: T) -> Refused {
        Refused::new(problem.to_string())
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Refused {
        Refused::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Refused {
        let found = match found {
            Unexpected::Bool(b) => format!("`{b}`"),
            Unexpected::Unsigned(n) => format!("`{n}`"),
            Unexpected::Signed(n) => format!("`{n}`"),
            Unexpected::Float(n) => format!("`{n}`"),
            Unexpected::Str(text) => format!("the text \"{}\"", shown(text)),
            Unexpected::Unit | Unexpected::Option => "empty".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            _ => "something else".to_owned(),
        };
        mismatch(&found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Refused {
        let count = expected.to_string();
        let count = count.split_whitespace().find(|word| word.parse::<usize>().is_ok());
        Refused::new(match count {
            Some(count) => format!("has {length} entries, and should have {count}"),
            None => format!("has {length} entries; {} should stand here", of(expected)),
        })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Refused {
        Refused::new(format!("`{}` is not known here; known are {}", shown(name), names(known)))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Refused {
        let name = shown(name);
        Refused::new(match known {
            [] => format!("there is no field `{name}` here, nor any other"),
            known => format!("there is no field `{name}` here; the fields are {}", names(known)),
        })
    }

    fn missing_field(name: &'static str) -> Refused {
        Refused::new(format!("`{name}` is missing"))
    }

    fn duplicate_field(name: &'static str) -> Refused {
        Refused::new(format!("`{name}` stands twice: keep one of them"))
    }
}

fn of(expected: &dyn Expected) -> String {
    wanted(&expected.to_string())
}

fn mismatch(found: &str, expected: &dyn Expected) -> Refused {
    Refused::new(format!("is {found}; {} should stand here", of(expected)))
}

/// A value of a tree, to be read.
pub(super) struct Reader<'a> {
    tree: &'a Tree,
    top: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a Tree) -> Reader<'a> {
        Reader { tree, top: true }
    }

    /// Says that the value is another than the one wanted.
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
        let n = number::whole(text).map_err(refused)?;
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

    /// A scalar whose kind its own spelling decides.
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
                    Err(problem) => Err(Refused::at(self.tree.at, problem)),
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
            // A type of a library refuses in its own words; what it wants is known from its name.
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

/// What a visitor calls itself.
fn visitor_name<'de, V: Visitor<'de>>(visitor: &V) -> String {
    (visitor as &dyn Expected).to_string()
}

struct List<'a> {
    items: std::slice::Iter<'a, Tree>,
    index: usize,
}

impl<'de> SeqAccess<'de> for &mut List<'de> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        let Some(tree) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Reader { tree, top: false })
            .map(Some)
            .map_err(|e| e.from(tree.at).inside(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'a> {
    fields: std::slice::Iter<'a, (Key, Tree)>,
    value: Option<(&'a Key, &'a Tree)>,
}

impl<'a> Fields<'a> {
    fn new(fields: &'a [(Key, Tree)]) -> Fields<'a> {
        Fields { fields: fields.iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some((key, value));
        let name: Tree = Tree {
            at: key.at,
            value: Value::Scalar(Style::Plain, key.text.clone()),
            one_line: false,
        };
        // A field's name is text unless the map's keys are numbers.
        let read = match name.is_null() {
            true => seed.deserialize(key.text.as_str().into_deserializer()),
            false => seed.deserialize(FieldName { name: &name }),
        };
        read.map(Some).map_err(|e: Refused| e.from(key.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let (key, tree) = self.value.take().ok_or_else(|| Refused::new("a field has no value"))?;
        seed.deserialize(Reader { tree, top: false })
            .map_err(|e| e.from(tree.at).inside(shown(&key.text)))
    }
}

/// The name of a field: text, or a number where the keys of a map are numbers.
struct FieldName<'a> {
    name: &'a Tree,
}

impl<'de> Deserializer<'de> for FieldName<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.name.value {
            Value::Scalar(_, text) => visitor.visit_str(text),
            _ => visitor.visit_unit(),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let reader = Reader { tree: self.name, top: false };
        let n = reader.whole::<u64>(0, i128::from(u64::MAX), &visitor)?;
        visitor.visit_u64(n)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match &self.name.value {
            Value::Scalar(_, text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => visitor.visit_unit(),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

/// A name out of several, with or without something that belongs to it.
struct Named<'a> {
    at: Mark,
    name: &'a str,
    value: Option<&'a Tree>,
}

impl<'de> EnumAccess<'de> for Named<'de> {
    type Error = Refused;
    type Variant = Named<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Named<'de>), Refused> {
        let name: de::value::StrDeserializer<'_, Refused> = self.name.into_deserializer();
        let variant = seed.deserialize(name).map_err(|e| e.from(self.at))?;
        Ok((variant, self))
    }
}

impl<'de> Named<'de> {
    fn needed(&self) -> Result<Reader<'de>, Refused> {
        match self.value {
            Some(tree) => Ok(Reader { tree, top: false }),
            None => {
                let name = self.name;
                let problem = format!("`{name}` needs fields: write them as `{name}: {{...}}`");
                Err(Refused::at(self.at, problem))
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Named<'de> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        match self.value {
            None => Ok(()),
            Some(tree) if tree.is_null() => Ok(()),
            Some(Tree { value: Value::Map(fields), .. }) if fields.is_empty() => Ok(()),
            Some(tree) => {
                Err(Refused::at(tree.at, format!("`{}` has no fields: write it alone", self.name)))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self.needed()?).map_err(|e| e.inside(self.name.to_owned()))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.needed()?.deserialize_seq(visitor).map_err(|e| e.inside(self.name.to_owned()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.needed()?.deserialize_map(visitor).map_err(|e| e.inside(self.name.to_owned()))
    }
}
