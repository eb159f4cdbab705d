//! The elements of the body.

use super::{Names, Resolver};
use crate::Invalid;
use crate::arch_space::amount::Term;
use crate::arch_space::program::{
    Alternative, CellUse, Depth, Gene, Join, MAX_OPTIONS, Stage, Step,
};
use crate::arch_space::spec::{DepthDef, ElementDef, OptionFields};
use crate::error::shown;

/// The most blocks of one stage, and the most uses of a cell in a row.
const MAX_BLOCKS: u32 = 1_000;

impl Resolver<'_> {
    pub(super) fn element(&mut self, def: &ElementDef, place: &str) -> Result<(), Invalid> {
        let layers = def.op.is_some() || def.options.is_some() || def.layers.is_some();
        let kinds = [def.choose.is_some(), def.cell.is_some(), def.join.is_some(), layers];
        if kinds.into_iter().filter(|&kind| kind).count() != 1 {
            return Err(Invalid::new(
                place,
                "an element has one of `op`, `options` or `layers` (a layer, or a stage of blocks), `cell`, \
                 `join` and `choose`",
            ));
        }
        def.check_fields(place)?;
        if let Some(choices) = &def.choose {
            return self.choose(&format!("{place}.choose"), choices);
        }
        if let Some(cell) = &def.cell {
            self.uses(def, cell, place)?;
        } else if let Some(sources) = &def.join {
            self.join(def, sources, place)?;
        } else {
            self.stage(def, place)?;
        }
        if let Some(id) = &def.id {
            self.check_name(id, &format!("{place}.id"))?;
            let tap = self.program.taps;
            self.program.taps += 1;
            self.taps.insert(id.clone(), tap);
            self.step(Step::Save { tap })?;
        }
        Ok(())
    }

    fn tap(&self, name: &str, place: &str) -> Result<usize, Invalid> {
        self.taps.get(name).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.taps.keys().map(String::as_str).collect();
            known.sort_unstable();
            let problem = format!(
                "no element before it has the id `{}`; known are {}",
                shown(name),
                known.join(", ")
            );
            Invalid::new(place, problem)
        })
    }

    fn read(&self, names: Option<&Vec<String>>, place: &str) -> Result<Vec<usize>, Invalid> {
        let place = format!("{place}.inputs");
        match names.map(Vec::as_slice) {
            None => Ok(vec![]),
            Some([]) => {
                Err(Invalid::new(place, "is empty: without it, the element before is read"))
            }
            Some(names) if names.len() > MAX_OPTIONS => {
                Err(Invalid::new(place, format!("has more than {MAX_OPTIONS} names")))
            }
            Some(names) => names.iter().map(|name| self.tap(name, &place)).collect(),
        }
    }

    fn stage(&mut self, def: &ElementDef, place: &str) -> Result<(), Invalid> {
        let options = self.stage_options(def, place)?;
        let depth = self.depth(def.depth.as_ref(), place)?;
        let inputs = self.read(def.inputs.as_ref(), place)?;
        let at = |field: &str| format!("{place}.{field}");
        let c_out = def.c_out.as_ref();
        let c_out = c_out.map(|c| self.term(c, Names::C_IN, &[], &at("c_out"))).transpose()?;
        let stride = def.stride.as_ref();
        let stride =
            stride.map(|s| self.term(s, Names::CHOICES, &[], &at("stride"))).transpose()?;
        check_widths(&options, c_out.as_ref(), place)?;
        if inputs.len() > 1 && options.iter().any(|option| option.layers.is_empty()) {
            let problem = "are merged by the first layer, and an option here has no layer";
            return Err(Invalid::new(at("inputs"), problem));
        }
        if matches!(depth, Depth::Listed(_))
            && options.iter().any(|option| option.layers.is_empty())
        {
            let problem = "is a list, so that blocks can be absent, and an option here has no layer, which is the \
                           same: remove that option";
            return Err(Invalid::new(at("depth"), problem));
        }
        let layers = options.iter().map(|option| option.layers.len()).max().unwrap_or_default();
        let layers = u32::try_from(layers).unwrap_or(u32::MAX);
        let most = depth.most();
        let slot = self.slots(layers.saturating_mul(most))?;
        let name = def.id.clone().unwrap_or_else(|| place.to_owned());
        let allowed = self.allowed_options(&options, place)?;
        let labels: Vec<String> = options.iter().map(|option| option.label.clone()).collect();
        let (least, listed) = (depth.least(), matches!(depth, Depth::Listed(_)));
        let stage = self.program.stages.len();
        self.program.stages.push(Stage {
            place: place.to_owned(),
            depth,
            options,
            c_out,
            stride: stride.unwrap_or_else(|| Term::number(1)),
            inputs,
            merge: def.merge.unwrap_or_default(),
            layers,
            slot,
        });
        self.step(Step::Enter)?;
        for index in 0..most {
            let optional = index >= least;
            let chosen = labels.len() > 1 || (optional && listed);
            let gene = Gene {
                name: if most > 1 { format!("{name} block {}", index + 1) } else { name.clone() },
                options: labels.clone(),
                optional,
                place: place.to_owned(),
                allowed: allowed.clone(),
            };
            let gene = if chosen { Some(self.gene(gene)?) } else { None };
            self.step(Step::Block { gene, stage, index })?;
        }
        Ok(())
    }

    fn stage_options(
        &mut self,
        def: &ElementDef,
        place: &str,
    ) -> Result<Vec<Alternative>, Invalid> {
        let single = OptionFields {
            op: def.op.clone(),
            changes_shape: def.changes_shape.clone(),
            layers: def.layers.clone(),
            choices: def.choices.clone(),
            c_out: None,
            stride: None,
        };
        let fields: Vec<(String, &OptionFields)> = match &def.options {
            Some(options) => options
                .iter()
                .enumerate()
                .map(|(index, option)| (format!("{place}.options[{index}]"), &option.0))
                .collect(),
            None => vec![(place.to_owned(), &single)],
        };
        self.options(&fields, place)
    }

    fn depth(&self, def: Option<&DepthDef>, place: &str) -> Result<Depth, Invalid> {
        let place = format!("{place}.depth");
        let depth = match def {
            None => Depth::Fixed(1),
            Some(DepthDef::Amount(amount)) => {
                let blocks = self.term(amount, Names::CHOICES, &[], &place)?;
                self.depth_bounds(blocks, &place)?
            }
            Some(DepthDef::List(depths)) => {
                let mut depths = depths.clone();
                depths.sort_unstable();
                let count = depths.len();
                depths.dedup();
                if count == 0 || depths.len() < count {
                    let problem = "is a list of different numbers, at least one";
                    return Err(Invalid::new(place, problem));
                }
                match depths.as_slice() {
                    [one] => Depth::Fixed(*one),
                    _ => Depth::Listed(depths),
                }
            }
        };
        if !(1..=MAX_BLOCKS).contains(&depth.most()) {
            let problem = format!("comes to {}; it lies between 1 and {MAX_BLOCKS}", depth.most());
            return Err(Invalid::new(place, problem));
        }
        Ok(depth)
    }

    fn uses(&mut self, def: &ElementDef, name: &str, place: &str) -> Result<(), Invalid> {
        let at = |field: &str| format!("{place}.{field}");
        let cell = self.def.cells.0.iter().position(|(other, _)| other == name);
        let cell = cell.ok_or_else(|| {
            let known: Vec<&str> = self.def.cells.0.iter().map(|(name, _)| name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let problem = format!("there is no cell `{}`; under `cells` are {known}", shown(name));
            Invalid::new(at("cell"), problem)
        })?;
        let amount = def.c_out.as_ref().ok_or_else(|| Invalid::new(at("c_out"), "is missing"))?;
        let c_out = self.term(amount, Names::CHOICES, &[], &at("c_out"))?;
        let stride = match &def.stride {
            Some(stride) => self.term(stride, Names::CHOICES, &[], &at("stride"))?,
            None => Term::number(1),
        };
        let inputs = self.read(def.inputs.as_ref(), place)?;
        let wanted = self.program.cells[cell].inputs;
        if !inputs.is_empty() && inputs.len() != wanted {
            let problem = format!("has {} names, and the cell reads {wanted}", inputs.len());
            return Err(Invalid::new(at("inputs"), problem));
        }
        let repeat = def.repeat.unwrap_or(1);
        if !(1..=MAX_BLOCKS).contains(&repeat) {
            let problem = format!("is {repeat}; it lies between 1 and {MAX_BLOCKS}");
            return Err(Invalid::new(at("repeat"), problem));
        }
        for index in 0..repeat {
            let slot = self.slots(self.program.cells[cell].slots())?;
            let inputs = if index == 0 { inputs.clone() } else { vec![] };
            let stride = if index == 0 { stride.clone() } else { Term::number(1) };
            let used = self.program.uses.len();
            let (place, c_out) = (place.to_owned(), c_out.clone());
            self.program.uses.push(CellUse { place, cell, c_out, stride, inputs, slot });
            self.step(Step::Enter)?;
            self.step(Step::Cell { used })?;
        }
        Ok(())
    }

    fn join(&mut self, def: &ElementDef, names: &[String], place: &str) -> Result<(), Invalid> {
        let at = format!("{place}.join");
        if !(1..=MAX_OPTIONS).contains(&names.len()) {
            let problem = format!("names between 1 and {MAX_OPTIONS} earlier elements");
            return Err(Invalid::new(at, problem));
        }
        let mut sources = Vec::new();
        for name in names {
            let tap = self.tap(name, &at)?;
            if sources.contains(&tap) {
                return Err(Invalid::new(at, format!("has `{}` twice", shown(name))));
            }
            sources.push(tap);
        }
        let through = def.through.as_ref();
        let through =
            through.map(|op| self.op_name(op, &[], &format!("{place}.through"))).transpose()?;
        let slot = self.slots(u32::try_from(names.len() + 1).unwrap_or(u32::MAX))?;
        let join = self.program.joins.len();
        self.program.joins.push(Join { place: place.to_owned(), sources, through, slot });
        self.step(Step::Enter)?;
        let target = def.id.as_deref().unwrap_or(place);
        for (source, name) in names.iter().enumerate() {
            let gene = self.gene(Gene {
                name: format!("edge {name} to {target}"),
                options: vec!["no".to_owned(), "yes".to_owned()],
                optional: false,
                place: format!("{at}[{source}]"),
                allowed: vec![true; 2],
            })?;
            self.step(Step::Edge { gene, join, source })?;
        }
        self.step(Step::Join { join })
    }
}

/// Every layer has its output channels, from its own fields, from its option, or from its stage.
fn check_widths(options: &[Alternative], stage: Option<&Term>, place: &str) -> Result<(), Invalid> {
    let lacks = |option: &Alternative| {
        let own = |layer: &crate::arch_space::program::Layer| {
            layer.c_out.as_ref().is_some_and(|term| !term.mentions_c_out())
        };
        option.c_out.is_none() && !option.layers.iter().all(own)
    };
    if stage.is_none() && options.iter().any(lacks) {
        return Err(Invalid::new(
            format!("{place}.c_out"),
            "is missing: write the output channels, or `c_in` for those of the input",
        ));
    }
    Ok(())
}

impl ElementDef {
    /// Refuses fields that mean nothing for this kind of element.
    fn check_fields(&self, place: &str) -> Result<(), Invalid> {
        let choose = self.choose.is_some();
        let (cell, join) = (self.cell.is_some(), self.join.is_some());
        let special = choose || cell || join;
        let options = self.options.is_some();
        let inside = "stands inside each of `options`";
        let wrong = [
            ("id", self.id.is_some() && choose, "choices have no value to name"),
            ("repeat", self.repeat.is_some() && !cell, "belongs to a cell; blocks have `depth`"),
            ("through", self.through.is_some() && !join, "belongs to `join`"),
            ("depth", self.depth.is_some() && special, "belongs to layers; a cell has `repeat`"),
            ("choices", !self.choices.0.is_empty() && special, "belongs to layers"),
            ("changes_shape", self.changes_shape.is_some() && special, "belongs to layers"),
            ("c_out", self.c_out.is_some() && (choose || join), "belongs to layers and cells"),
            ("stride", self.stride.is_some() && (choose || join), "belongs to layers and cells"),
            ("inputs", self.inputs.is_some() && (choose || join), "belongs to layers and cells"),
            ("merge", self.merge.is_some() && special, "belongs to layers"),
            ("merge", self.merge.is_some() && self.inputs.is_none(), "needs several `inputs`"),
            ("op", self.op.is_some() && options, inside),
            ("layers", self.layers.is_some() && options, inside),
            ("choices", !self.choices.0.is_empty() && options, inside),
            ("changes_shape", self.changes_shape.is_some() && options, inside),
        ];
        match wrong.into_iter().find(|(_, wrong, _)| *wrong) {
            Some((field, _, problem)) => Err(Invalid::new(format!("{place}.{field}"), problem)),
            None => Ok(()),
        }
    }
}
