//! The options of blocks and edges.

use super::{Bindings, Names, Resolver, too_many};
use crate::Invalid;
use crate::arch_space::amount::Amount;
use crate::arch_space::program::{Alternative, Layer, MAX_OPTIONS};
use crate::arch_space::spec::{ChoiceValue, LayerDef, OptionFields, Template};

/// The most layers of one option.
const MAX_LAYERS: usize = 64;

impl Resolver<'_> {
    /// The options of a block or an edge: each combination of the choices of each.
    pub(super) fn options(
        &mut self,
        defs: &[(String, &OptionFields)],
        place: &str,
    ) -> Result<Vec<Alternative>, Invalid> {
        let mut count = 0;
        let mut options = Vec::new();
        for (at, fields) in defs {
            count += fields.choices.0.iter().map(|(_, values)| values.0.len()).product::<usize>();
            if count > MAX_OPTIONS {
                return Err(too_many(place, count));
            }
            let mut combinations: Vec<Vec<(String, ChoiceValue)>> = vec![vec![]];
            for (name, values) in &fields.choices.0 {
                let at = format!("{at}.choices.{name}");
                self.check_choice(name, values, &at)?;
                let longer = |head: &Vec<(String, ChoiceValue)>| {
                    let with = |value: &ChoiceValue| {
                        let own = (name.clone(), value.clone());
                        head.iter().cloned().chain([own]).collect()
                    };
                    values.0.iter().map(with).collect::<Vec<_>>()
                };
                combinations = combinations.iter().flat_map(longer).collect();
            }
            for bindings in combinations {
                options.push(self.option(fields, bindings, at)?);
            }
        }
        if options.is_empty() {
            return Err(Invalid::new(place, "has no option"));
        }
        Ok(options)
    }

    fn option(
        &mut self,
        fields: &OptionFields,
        bindings: Vec<(String, ChoiceValue)>,
        place: &str,
    ) -> Result<Alternative, Invalid> {
        let layers = match (&fields.op, &fields.layers) {
            (Some(op), None) => {
                let layer = LayerDef {
                    op: op.clone(),
                    changes_shape: fields.changes_shape.clone(),
                    c_out: None,
                    stride: None,
                };
                vec![self.layer(&layer, &bindings, place)?]
            }
            (None, Some(layers)) if fields.changes_shape.is_none() => layers
                .iter()
                .enumerate()
                .map(|(index, layer)| {
                    self.layer(layer, &bindings, &format!("{place}.layers[{index}]"))
                })
                .collect::<Result<_, _>>()?,
            (None, Some(_)) => {
                let problem = "stands beside `op`; with `layers`, each layer has its own";
                return Err(Invalid::new(format!("{place}.changes_shape"), problem));
            }
            _ => return Err(Invalid::new(place, "an option has either `op` or `layers`")),
        };
        if layers.len() > MAX_LAYERS {
            let problem =
                format!("has {} layers; an option has at most {MAX_LAYERS}", layers.len());
            return Err(Invalid::new(format!("{place}.layers"), problem));
        }
        let term = |amount: &Option<Amount>, names: Names, field: &str| {
            let place = format!("{place}.{field}");
            amount.as_ref().map(|amount| self.term(amount, names, &bindings, &place)).transpose()
        };
        Ok(Alternative {
            label: label(fields, &bindings),
            layers,
            c_out: term(&fields.c_out, Names::C_IN, "c_out")?,
            stride: term(&fields.stride, Names::STRIDE, "stride")?,
            bindings,
        })
    }

    fn layer(&self, def: &LayerDef, own: &Bindings, place: &str) -> Result<Layer, Invalid> {
        let at = |field: &str| format!("{place}.{field}");
        let other = def.changes_shape.as_ref();
        Ok(Layer {
            op: self.op_name(&def.op, own, &at("op"))?,
            changes_shape: other
                .map(|name| self.op_name(name, own, &at("changes_shape")))
                .transpose()?,
            c_out: (def.c_out.as_ref())
                .map(|amount| self.term(amount, Names::LAYER, own, &at("c_out")))
                .transpose()?,
            stride: (def.stride.as_ref())
                .map(|amount| self.term(amount, Names::STRIDE, own, &at("stride")))
                .transpose()?,
        })
    }

    /// Which options a restriction leaves, by the values of their own choices.
    pub(super) fn allowed_options(
        &mut self,
        options: &[Alternative],
        place: &str,
    ) -> Result<Vec<bool>, Invalid> {
        let mut allowed = vec![true; options.len()];
        let mut names: Vec<&str> = options
            .iter()
            .flat_map(|option| &option.bindings)
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let own = |option: &Alternative| {
                let mut own = option.bindings.iter().filter(|(other, _)| other == name);
                own.next().map(|(_, value)| value.clone())
            };
            let values: Vec<ChoiceValue> = options.iter().filter_map(own).collect();
            let kept = self.allowed(name, &values, place)?;
            let mut kept = kept.into_iter();
            for (allowed, option) in allowed.iter_mut().zip(options) {
                if own(option).is_some() {
                    *allowed &= kept.next().unwrap_or(true);
                }
            }
        }
        Ok(allowed)
    }
}

fn label(fields: &OptionFields, bindings: &Bindings) -> String {
    if !bindings.is_empty() {
        let own: Vec<String> =
            bindings.iter().map(|(name, value)| format!("{name} {}", value.label)).collect();
        return own.join(", ");
    }
    let with = |op: &Template, other: &Option<Template>| match other {
        Some(Template(other)) => format!("{} ({other} where it changes the shape)", op.0),
        None => op.0.clone(),
    };
    match (&fields.op, &fields.layers) {
        (Some(op), _) => with(op, &fields.changes_shape),
        (None, Some(layers)) if !layers.is_empty() => {
            let all: Vec<String> =
                layers.iter().map(|layer| with(&layer.op, &layer.changes_shape)).collect();
            all.join(" + ")
        }
        _ => "nothing".to_owned(),
    }
}
