//! The parts of a value: items of a list, fields of a map, and a variant's name with its content.

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{Reader, Refused};
use crate::error::shown;
use crate::text::tree::{Key, Mark, Style, Tree, Value};

/// The values of a list, in order.
pub(super) struct List<'a> {
    pub(super) items: std::slice::Iter<'a, Tree>,
    pub(super) index: usize,
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

/// The fields of a map, in order.
pub(super) struct Fields<'a> {
    fields: std::slice::Iter<'a, (Key, Tree)>,
    value: Option<(&'a Key, &'a Tree)>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(fields: &'a [(Key, Tree)]) -> Fields<'a> {
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
        // The name of a field is text, unless the keys of the map are numbers.
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

/// The name of a field: text, or a number if the keys of the map are numbers.
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

/// The name of a variant, with or without content.
pub(super) struct Named<'a> {
    pub(super) at: Mark,
    pub(super) name: &'a str,
    pub(super) value: Option<&'a Tree>,
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
        // A bare name has the default of each field, unless a field has none.
        if self.value.is_none() {
            let read = visitor.visit_map(Fields::new(&[]));
            return read.map_err(|_: Refused| match self.needed() {
                Ok(_) => Refused::at(self.at, "should be an object"),
                Err(error) => error,
            });
        }
        self.needed()?.deserialize_map(visitor).map_err(|e| e.inside(self.name.to_owned()))
    }
}
