//! From a definition to a program: names are looked up, options are spelled out, and genes are numbered.

mod cells;
mod elements;
mod options;

use std::collections::{BTreeMap, HashMap};

use super::amount::{Amount, Factor, Term, Values, is_name};
use super::program::{Choice, Depth, Gene, INPUT_TAP, MAX_OPTIONS, OpName, Piece, Program, Step};
use super::spec::{ArchSpaceDef, ChoiceDef, ChoiceValue, Named, Template};
use crate::Invalid;
use crate::error::shown;

/// The most steps of a program; a network has at most as many nodes.
const MAX_STEPS: usize = 10_000;

/// The most places for ops.
const MAX_SLOTS: u32 = 50_000;

/// The most genes.
const MAX_GENES: usize = 1_000;

/// The most divisor of widths.
const MAX_DIVISOR: u32 = 1_024;

/// Names that are no choices and no elements.
const RESERVED: [&str; 4] = ["c_in", "c_out", "stride", "input"];

/// The values that a restriction leaves, by the name of a choice: labels or numbers.
pub type Restriction = BTreeMap<String, Vec<String>>;

/// The names that amounts may use in one place, beside those of choices.
#[derive(Clone, Copy)]
struct Names {
    c_in: bool,
    c_out: bool,
    stride: bool,
}

impl Names {
    const CHOICES: Names = Names { c_in: false, c_out: false, stride: false };
    const C_IN: Names = Names { c_in: true, ..Names::CHOICES };
    const LAYER: Names = Names { c_in: true, c_out: true, stride: false };
    const STRIDE: Names = Names { stride: true, ..Names::CHOICES };
}

/// The values of an option's own choices.
type Bindings = [(String, ChoiceValue)];

struct Resolver<'a> {
    def: &'a ArchSpaceDef,
    program: Program,
    /// Choices that later elements can use.
    choices: HashMap<String, usize>,
    /// Names of values that later elements can read.
    taps: HashMap<String, usize>,
    restriction: &'a Restriction,
    /// Which names of the restriction were found.
    restricted: Vec<String>,
}

/// Looks up every name of a definition.
///
/// # Errors
/// Names the field and the problem.
pub(super) fn resolve(def: &ArchSpaceDef, restriction: &Restriction) -> Result<Program, Invalid> {
    if def.version == 0 {
        return Err(Invalid::new("version", "is 0; versions begin with 1"));
    }
    if let Some(divisor) = def.divisor
        && !(1..=MAX_DIVISOR).contains(&divisor)
    {
        let problem = format!("is {divisor}; it lies between 1 and {MAX_DIVISOR}");
        return Err(Invalid::new("divisor", problem));
    }
    let program = Program {
        divisor: def.divisor,
        input: [1; 4].map(Term::number),
        choices: vec![],
        genes: vec![],
        cell_genes: vec![],
        steps: vec![],
        stages: vec![],
        joins: vec![],
        cells: vec![],
        uses: vec![],
        taps: INPUT_TAP + 1,
        slots: 0,
        live: vec![],
    };
    let taps = HashMap::from([("input".to_owned(), INPUT_TAP)]);
    let choices = HashMap::new();
    let mut resolver =
        Resolver { def, program, choices, taps, restriction, restricted: Vec::new() };
    resolver.all()?;
    let mut program = resolver.program;
    program.find_live();
    Ok(program)
}

impl Resolver<'_> {
    fn all(&mut self) -> Result<(), Invalid> {
        self.choose("choices", &self.def.choices)?;
        let sizes = &self.def.input;
        for (index, (field, amount)) in
            [("n", &sizes.n), ("c", &sizes.c), ("h", &sizes.h), ("w", &sizes.w)]
                .into_iter()
                .enumerate()
        {
            let place = format!("input.{field}");
            self.program.input[index] = self.term(amount, Names::CHOICES, &[], &place)?;
        }
        self.step(Step::Input)?;
        for (name, cell) in &self.def.cells.0 {
            self.cell(name, cell)?;
        }
        if self.def.body.is_empty() {
            return Err(Invalid::new("body", "is empty, and should have at least one element"));
        }
        for (index, element) in self.def.body.iter().enumerate() {
            self.element(element, &format!("body[{index}]"))?;
        }
        self.cell_genes()?;
        self.check_use()?;
        if self.program.genes.is_empty() {
            let problem = "leaves no choice, so there is one network only: write it as a network";
            return Err(Invalid::new("body", problem));
        }
        Ok(())
    }

    /// Everything that is defined has to be used, and a restriction has to be about a choice.
    fn check_use(&self) -> Result<(), Invalid> {
        let mut program = self.program.clone();
        program.find_live();
        let start = program.live.first().cloned();
        let used = |choice: usize| start.as_ref().is_some_and(|live| live.choices[choice]);
        // A choice of the input alone is not needed after the first step.
        let of_input: Vec<usize> = program.input.iter().flat_map(Term::choices).collect();
        for (name, &choice) in &self.choices {
            let declared = program.steps.iter().position(
                |step| matches!(step, Step::Choose { choice: other, .. } if *other == choice),
            );
            let later = declared.is_some_and(|step| program.live[step].choices[choice]);
            if !(used(choice) || later || of_input.contains(&choice)) {
                return Err(Invalid::new(
                    format!("choice {name}"),
                    "changes nothing: no amount and no name of an op has it",
                ));
            }
        }
        match self.restriction.keys().find(|name| !self.restricted.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = self.known_choices();
                let problem = format!("there is no such choice; it has {}", known.join(", "));
                Err(Invalid::new(format!("choice {}", shown(name)), problem))
            }
        }
    }

    /// The names of all choices, each once.
    fn known_choices(&self) -> Vec<&str> {
        let options = self.program.stages.iter().flat_map(|stage| &stage.options);
        let options = options.chain(self.program.cells.iter().flat_map(|cell| &cell.options));
        let own = options.flat_map(|option| option.bindings.iter().map(|(name, _)| name.as_str()));
        let mut known: Vec<&str> = self.choices.keys().map(String::as_str).chain(own).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    fn step(&mut self, step: Step) -> Result<(), Invalid> {
        if self.program.steps.len() == MAX_STEPS {
            return Err(Invalid::new("body", format!("has more than {MAX_STEPS} blocks")));
        }
        self.program.steps.push(step);
        Ok(())
    }

    fn gene(&mut self, gene: Gene) -> Result<usize, Invalid> {
        if self.program.genes.len() == MAX_GENES {
            return Err(Invalid::new(gene.place, format!("is one gene more than {MAX_GENES}")));
        }
        if gene.options.len() > MAX_OPTIONS {
            return Err(too_many(&gene.place, gene.options.len()));
        }
        if !gene.allowed.contains(&true) {
            let problem = format!("no option of {} is left by the restriction", gene.name);
            return Err(Invalid::new(gene.place, problem));
        }
        self.program.genes.push(gene);
        Ok(self.program.genes.len() - 1)
    }

    /// Places for so many ops; returns the first.
    fn slots(&mut self, count: u32) -> Result<u32, Invalid> {
        let first = self.program.slots;
        match first.checked_add(count).filter(|&slots| slots <= MAX_SLOTS) {
            Some(slots) => self.program.slots = slots,
            None => return Err(Invalid::new("body", format!("has more than {MAX_SLOTS} ops"))),
        }
        Ok(first)
    }

    /// Choices whose values later elements use.
    fn choose(&mut self, place: &str, choices: &Named<ChoiceDef>) -> Result<(), Invalid> {
        for (name, def) in &choices.0 {
            let place = format!("{place}.{name}");
            self.check_choice(name, def, &place)?;
            let allowed = self.allowed(name, &def.0, &place)?;
            let index = self.program.choices.len();
            let gene = self.gene(Gene {
                name: name.clone(),
                options: def.0.iter().map(|value| value.label.clone()).collect(),
                optional: false,
                place,
                allowed,
            })?;
            self.program.choices.push(Choice { values: def.0.clone() });
            self.choices.insert(name.clone(), index);
            self.step(Step::Choose { gene, choice: index })?;
        }
        Ok(())
    }

    /// Checks a choice on its own.
    fn check_choice(&self, name: &str, def: &ChoiceDef, place: &str) -> Result<(), Invalid> {
        self.check_name(name, place)?;
        if def.0.is_empty() {
            return Err(Invalid::new(place, "has no value"));
        }
        if def.0.len() > MAX_OPTIONS {
            return Err(too_many(place, def.0.len()));
        }
        for (index, value) in def.0.iter().enumerate() {
            if def.0[..index].iter().any(|other| other.label == value.label) {
                let problem = format!("has `{}` twice", shown(&value.label));
                return Err(Invalid::new(place, problem));
            }
        }
        Ok(())
    }

    fn check_name(&self, name: &str, place: &str) -> Result<(), Invalid> {
        if !is_name(name) {
            let problem =
                "is no name: a name is a letter, then letters, digits and `_`, at most 40";
            return Err(Invalid::new(place, problem));
        }
        if RESERVED.contains(&name)
            || self.choices.contains_key(name)
            || self.taps.contains_key(name)
        {
            return Err(Invalid::new(place, format!("the name `{name}` is taken: choose another")));
        }
        Ok(())
    }

    /// Which values a restriction leaves.
    fn allowed(
        &mut self,
        name: &str,
        values: &[ChoiceValue],
        place: &str,
    ) -> Result<Vec<bool>, Invalid> {
        let Some(kept) = self.restriction.get(name) else { return Ok(vec![true; values.len()]) };
        self.restricted.push(name.to_owned());
        if let Some(other) = kept.iter().find(|kept| !values.iter().any(|value| value.is(kept))) {
            let mut known: Vec<&str> = Vec::new();
            for value in values {
                if !known.contains(&value.label.as_str()) {
                    known.push(&value.label);
                }
            }
            return Err(Invalid::new(
                format!("choice {name}"),
                format!(
                    "`{}` is no value of it ({place}); the values are {}",
                    shown(other),
                    known.join(", ")
                ),
            ));
        }
        Ok(values.iter().map(|value| kept.iter().any(|kept| value.is(kept))).collect())
    }

    /// An amount with its names looked up.
    fn term(
        &self,
        amount: &Amount,
        names: Names,
        own: &Bindings,
        place: &str,
    ) -> Result<Term, Invalid> {
        amount.resolve(|name| match name {
            "c_in" if names.c_in => Ok(Factor::CIn),
            "c_out" if names.c_out => Ok(Factor::COut),
            "stride" if names.stride => Ok(Factor::Stride),
            _ => {
                if let Some((_, value)) = own.iter().find(|(choice, _)| choice == name) {
                    return match value.number {
                        Some(number) => Ok(Factor::Known(number)),
                        None => Err(no_number(name, value, place)),
                    };
                }
                let choice = self.choices.get(name).copied();
                let choice = choice.ok_or_else(|| self.no_choice(name, place))?;
                let values = &self.program.choices[choice].values;
                match values.iter().find(|value| value.number.is_none()) {
                    Some(value) => Err(no_number(name, value, place)),
                    None => Ok(Factor::Choice(choice)),
                }
            }
        })
    }

    fn no_choice(&self, name: &str, place: &str) -> Invalid {
        let known: Vec<&str> = self.known_choices();
        let known = match known.as_slice() {
            [] => "there is none before it".to_owned(),
            known => format!("known are {}", known.join(", ")),
        };
        Invalid::new(place, format!("there is no choice `{}` here; {known}", shown(name)))
    }

    /// The name of an op with its holes looked up. A point in a value is written `p`, as in `MBConv2p5`.
    fn op_name(&self, template: &Template, own: &Bindings, place: &str) -> Result<OpName, Invalid> {
        let mut pieces = Vec::new();
        let mut rest = template.0.as_str();
        while let Some((text, hole)) = rest.split_once('<') {
            let (name, after) = hole
                .split_once('>')
                .ok_or_else(|| Invalid::new(place, "has a `<` that is not closed"))?;
            pieces.push(Piece::Text(text.to_owned()));
            match own.iter().find(|(choice, _)| choice == name) {
                Some((_, value)) => pieces.push(Piece::Text(value.text.replace('.', "p"))),
                None => {
                    let choice = self.choices.get(name).copied();
                    let choice = choice.ok_or_else(|| self.no_choice(name, place))?;
                    pieces.push(Piece::Choice(choice));
                }
            }
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(OpName(pieces))
    }

    /// The most that an amount without other names can come to.
    fn bounds(&self, term: &Term, place: &str) -> Result<(u32, u32), Invalid> {
        let extreme = |most: bool| {
            let choice = |index: usize| {
                let numbers =
                    self.program.choices[index].values.iter().filter_map(|value| value.number);
                let order = |a: &super::amount::Ratio, b: &super::amount::Ratio| a.compare(b);
                if most { numbers.max_by(order) } else { numbers.min_by(order) }
            };
            let values = Values { choice: &choice, c_in: 1, c_out: 1, stride: 1 };
            term.blocks(&values).map_err(|e| e.within(place))
        };
        Ok((extreme(false)?, extreme(true)?))
    }

    fn depth_bounds(&self, blocks: Term, place: &str) -> Result<Depth, Invalid> {
        let (least, most) = self.bounds(&blocks, place)?;
        match least == most {
            true => Ok(Depth::Fixed(most)),
            false => Ok(Depth::Forced { blocks, least, most }),
        }
    }
}

impl ChoiceValue {
    /// Whether a text of a restriction means this value.
    fn is(&self, text: &str) -> bool {
        let number = super::amount::Ratio::decimal(text);
        self.label == text || (number.is_some() && number == self.number)
    }
}

fn no_number(name: &str, value: &ChoiceValue, place: &str) -> Invalid {
    let problem = format!(
        "`{name}` has the value \"{}\", which is no number, so it can't stand in an amount",
        shown(&value.label)
    );
    Invalid::new(place, problem)
}

fn too_many(place: &str, count: usize) -> Invalid {
    let problem = format!(
        "has {count} options together; one gene has at most {MAX_OPTIONS}: make it two choices"
    );
    Invalid::new(place, problem)
}
