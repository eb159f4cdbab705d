//! The space of architectures of a configuration.

use std::fmt;
use std::path::PathBuf;

use ops_catalog::arch_space::{
    ArchSpaceDef, CompiledSpace, Restriction, Scalar, builtin_space, builtin_spaces,
};
use ops_catalog::{Catalog, Invalid, shown};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The built-in space of each backbone with each head.
const BACKBONES: [(&str, &str, &str); 2] =
    [("MobileNetV2", "FPN", "mobilenet_v2_fpn"), ("MobileNetV3", "FPN", "mobilenet_v3_fpn")];

/// The choices of a head. All others are of the backbone.
const HEAD_CHOICES: [&str; 1] = ["channels"];

/// Where the definition of a space is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpaceSource {
    /// A built-in space, by its name.
    Builtin(String),
    /// A file.
    File(PathBuf),
}

/// A space, and the values that its choices may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceChoice {
    /// The space.
    pub source: SpaceSource,
    /// The values, by the name of the choice; a choice that is not here has all of its values.
    pub restriction: Restriction,
    /// The field of each name, for messages.
    places: Vec<(String, String)>,
}

/// `search_space` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceDef {
    backbone: Option<Part>,
    head: Option<Part>,
    space: Option<String>,
    choices: Option<Choices>,
}

/// A backbone or a head: its type, and the values of its choices.
#[derive(Debug)]
struct Part {
    kind: Option<String>,
    choices: Choices,
}

/// Values by the names of choices, in the order of the file.
#[derive(Debug, Default)]
struct Choices(Vec<(String, Vec<Scalar>)>);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, written `name: value`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut part = Part { kind: None, choices: Choices::default() };
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "type" => part.kind = Some(map.next_value()?),
                        _ => part.choices.0.push((name, map.next_value()?)),
                    }
                }
                Ok(part)
            }
        }
        deserializer.deserialize_map(PartVisitor)
    }
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoicesVisitor;
        impl<'de> Visitor<'de> for ChoicesVisitor {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, written `name: value`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choices, A::Error> {
                let mut choices = Choices::default();
                while let Some(entry) = map.next_entry()? {
                    choices.0.push(entry);
                }
                Ok(choices)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Choices, A::Error> {
                Err(de::Error::custom("is a list; write `name: [values]` for each choice"))
            }
        }
        deserializer.deserialize_map(ChoicesVisitor)
    }
}

impl SpaceDef {
    pub(super) fn checked(self) -> Result<SpaceChoice, Invalid> {
        let place = "search_space";
        let choice = match (self.space, self.backbone, self.head) {
            (Some(name), None, None) => {
                let choices = self.choices.unwrap_or_default();
                SpaceChoice::new(source(&name)?, vec![(format!("{place}.choices"), choices)])?
            }
            (None, Some(backbone), Some(head)) if self.choices.is_none() => {
                let name = builtin(&backbone, &head)?;
                check_owner(&backbone, &head)?;
                let choices = vec![
                    (format!("{place}.backbone"), backbone.choices),
                    (format!("{place}.head"), head.choices),
                ];
                SpaceChoice::new(SpaceSource::Builtin(name.to_owned()), choices)?
            }
            (None, Some(_), None) => {
                let problem = "is missing: a backbone has a head, such as `head: {type: FPN}`";
                return Err(Invalid::new("search_space.head", problem));
            }
            (None, None, Some(_)) => {
                let problem =
                    "is missing: a head has a backbone, such as `backbone: {type: MobileNetV3}`";
                return Err(Invalid::new("search_space.backbone", problem));
            }
            (None, Some(_), Some(_)) => {
                let problem =
                    "belongs to `space`; choices of a backbone and a head stand inside them";
                return Err(Invalid::new("search_space.choices", problem));
            }
            (Some(_), _, _) => {
                let problem = "stands beside `backbone` or `head`: keep one of the two forms";
                return Err(Invalid::new("search_space.space", problem));
            }
            (None, None, None) => {
                let problem = "names no space: give `backbone` and `head`, or `space`";
                return Err(Invalid::new(place, problem));
            }
        };
        if let SpaceSource::Builtin(name) = &choice.source {
            let space =
                builtin_space(name).map_err(|e| Invalid::new("search_space.space", e.problem))?;
            choice.check(&space.def())?;
        }
        Ok(choice)
    }
}

/// A built-in name, or a file.
fn source(text: &str) -> Result<SpaceSource, Invalid> {
    if text.contains(['/', '\\', '.']) {
        return Ok(SpaceSource::File(PathBuf::from(text)));
    }
    match builtin_space(text) {
        Ok(_) => Ok(SpaceSource::Builtin(text.to_owned())),
        Err(_) => {
            let known: Vec<&str> = builtin_spaces().map(|space| space.name).collect();
            let problem = format!(
                "there is no space `{}`; the built-in ones are {} (a file is written with its folder or \
                 extension)",
                shown(text),
                known.join(", ")
            );
            Err(Invalid::new("search_space.space", problem))
        }
    }
}

/// The built-in space of a backbone with a head.
fn builtin(backbone: &Part, head: &Part) -> Result<&'static str, Invalid> {
    let missing = |part: &str| Invalid::new(format!("search_space.{part}"), "has no `type`");
    let wanted = backbone.kind.as_deref().ok_or_else(|| missing("backbone"))?;
    let on_top = head.kind.as_deref().ok_or_else(|| missing("head"))?;
    let unknown = |part: &str, name: &str, known: Vec<&str>| {
        let problem = format!(
            "`{}` is not known here; known are {}. For another network, write a space of your own and name it \
             under `space`: docs/spaces.md",
            shown(name),
            known.join(", ")
        );
        Err(Invalid::new(format!("search_space.{part}.type"), problem))
    };
    let of_backbone: Vec<_> = BACKBONES.iter().filter(|(name, ..)| *name == wanted).collect();
    if of_backbone.is_empty() {
        return unknown("backbone", wanted, BACKBONES.iter().map(|(name, ..)| *name).collect());
    }
    match of_backbone.iter().find(|(_, name, _)| *name == on_top) {
        Some((.., space)) => Ok(space),
        None => unknown("head", on_top, of_backbone.iter().map(|(_, name, _)| *name).collect()),
    }
}

/// The choices of a head stand in the head, and all others in the backbone.
fn check_owner(backbone: &Part, head: &Part) -> Result<(), Invalid> {
    let of_head = |name: &str| HEAD_CHOICES.contains(&name);
    let wrong = |part: &str, name: &str, other: &str| {
        let problem = format!("is no choice of a {part}; it belongs to `{other}`, if it is one");
        Err(Invalid::new(format!("search_space.{part}.{name}"), problem))
    };
    if let Some((name, _)) = backbone.choices.0.iter().find(|(name, _)| of_head(name)) {
        return wrong("backbone", name, "head");
    }
    match head.choices.0.iter().find(|(name, _)| !of_head(name)) {
        Some((name, _)) => wrong("head", name, "backbone"),
        None => Ok(()),
    }
}

impl SpaceChoice {
    fn new(source: SpaceSource, choices: Vec<(String, Choices)>) -> Result<SpaceChoice, Invalid> {
        let mut choice = SpaceChoice { source, restriction: Restriction::new(), places: vec![] };
        for (outer, Choices(choices)) in choices {
            for (name, values) in choices {
                let place = format!("{outer}.{name}");
                if values.is_empty() {
                    return Err(Invalid::new(place, "is empty, so no network is left"));
                }
                let values: Vec<String> =
                    values.iter().map(|value| value.text().to_owned()).collect();
                if let Some(twice) =
                    (1..values.len()).find(|&index| values[..index].contains(&values[index]))
                {
                    let problem = format!("has `{}` twice", shown(&values[twice]));
                    return Err(Invalid::new(place, problem));
                }
                choice.restriction.insert(name.clone(), values);
                choice.places.push((name, place));
            }
        }
        Ok(choice)
    }

    /// Checks the names and values of the choices against the definition of the space.
    ///
    /// # Errors
    /// Names the field of the configuration.
    pub fn check(&self, def: &ArchSpaceDef) -> Result<(), Invalid> {
        def.check(&self.restriction).map_err(|e| self.placed(e))
    }

    /// Compiles the part of the space that the configuration leaves.
    ///
    /// # Errors
    /// Names the field of the configuration, or of the definition.
    pub fn compile(&self, def: &ArchSpaceDef, catalog: &Catalog) -> Result<CompiledSpace, Invalid> {
        def.compile_restricted(catalog, &self.restriction).map_err(|e| self.placed(e))
    }

    /// A problem with a choice, at the field of the configuration.
    fn placed(&self, error: Invalid) -> Invalid {
        let name = error.place.strip_prefix("choice ");
        match self.places.iter().find(|(other, _)| name == Some(other)) {
            Some((_, place)) => Invalid::new(place.clone(), error.problem),
            None => error,
        }
    }
}
