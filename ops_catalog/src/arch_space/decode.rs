//! From genotypes to networks.

use std::collections::BTreeSet;

use super::ops::Ops;
use super::run::{Builder, Call, INACTIVE, Problem, Run, State, Wire};
use super::space::{CompiledSpace, INACTIVE_LETTER, option_of};
use crate::error::shown;
use crate::spec::{ExternalId, Input, LayerSpec, NetworkSpec, NodeSpec};
use crate::tensor::TensorShape;
use crate::{Invalid, Network};

/// A builder that writes a network down.
struct Writer<'a> {
    ops: &'a Ops,
    input: Option<Input>,
    nodes: Vec<NodeSpec>,
}

impl Builder for Writer<'_> {
    fn shape(&mut self, call: &Call<'_>) -> Result<TensorShape, Problem> {
        self.ops.output(call)
    }

    fn add(&mut self, _slot: u32, call: &Call<'_>) -> Result<Wire, Problem> {
        let shape = self.ops.output(call)?;
        let node = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX);
        self.nodes.push(NodeSpec {
            op: Some(call.op.to_owned()),
            c_out: Some(call.c_out),
            stride: Some(call.stride),
            inputs: Some(call.inputs.iter().map(|wire| wire.node).collect()),
            merge: (call.inputs.len() > 1).then_some(call.merge),
        });
        Ok(Wire { shape, node })
    }

    fn input(&mut self, shape: TensorShape) -> Result<(), Problem> {
        if let TensorShape::Map { n, c, h, w } = shape {
            self.input = Some(Input { n, c, h, w });
        }
        Ok(())
    }
}

impl CompiledSpace {
    /// The network of a genotype. Its id is the genotype in full.
    ///
    /// # Errors
    /// When the genotype is of another space, or not one of a network; the message names the gene.
    pub fn decode(&self, genotype: &str) -> Result<NetworkSpec, Invalid> {
        let letters = self.letters(genotype)?.as_bytes();
        if self.walk(letters, |_| {}).is_err() {
            return Err(self.explain(letters));
        }
        self.interpret(letters)
    }

    /// Why some letters are not those of a network.
    pub fn explain(&self, letters: &[u8]) -> Invalid {
        if let Err(problem) = self.interpret(letters) {
            return problem;
        }
        let (_, mut state) = self.start();
        for (gene, &letter) in letters.iter().enumerate() {
            if let Some((_, next)) = self.step(gene, state, letter) {
                state = next;
                continue;
            }
            if let Some(other) = self.twin(gene, state, letter) {
                let name = &self.genes()[gene].name;
                let problem = format!(
                    "gives the same network with `{other}` in place of `{}` in gene {} ({name}), and is \
                     written so",
                    char::from(letter),
                    gene + 1
                );
                return self.about(letters, problem);
            }
            break;
        }
        self.about(letters, "is excluded by the restriction of the space")
    }

    fn about(&self, letters: &[u8], problem: impl Into<String>) -> Invalid {
        let letters = shown(&String::from_utf8_lossy(letters));
        Invalid::new(format!("genotype {letters}"), problem)
    }

    /// The options that letters stand for.
    pub(super) fn options(&self, letters: &[u8]) -> Result<Vec<Option<u8>>, Invalid> {
        let genes = self.genes();
        if letters.len() != genes.len() {
            let count = match letters.len() {
                1 => "1 letter".to_owned(),
                count => format!("{count} letters"),
            };
            let (space, genes) = (self.genotype(&[]), genes.len());
            let space = space.trim_end_matches(':');
            let problem = format!("has {count}; a genotype of {space} has {genes}");
            return Err(self.about(letters, problem));
        }
        let one = |(index, &letter): (usize, &u8)| {
            let gene = &genes[index];
            match option_of(letter) {
                Some(INACTIVE) if gene.optional => Ok(Some(INACTIVE)),
                Some(option) if usize::from(option) < gene.options.len() => Ok(Some(option)),
                _ => {
                    let last = super::space::letter_of(
                        u8::try_from(gene.options.len() - 1).unwrap_or(INACTIVE),
                    );
                    let absent = if gene.optional { ", or `.` where it is inactive" } else { "" };
                    let problem = format!(
                        "`{}` is no option of gene {} ({}): it has 0 to {}{absent}",
                        shown(&char::from(letter).to_string()),
                        index + 1,
                        gene.name,
                        char::from(last),
                    );
                    Err(self.about(letters, problem))
                }
            }
        };
        letters.iter().enumerate().map(one).collect()
    }

    /// Runs the program for some letters.
    fn interpret(&self, letters: &[u8]) -> Result<NetworkSpec, Invalid> {
        let options = self.options(letters)?;
        let mut writer = Writer { ops: &self.ops, input: None, nodes: vec![] };
        let mut state = State::new(&self.program);
        for (index, step) in self.program.steps.iter().enumerate() {
            let mut run = Run { program: &self.program, builder: &mut writer };
            run.step(index, &mut state, &options).map_err(|problem| {
                let problem = problem.invalid();
                let problem = match step.gene() {
                    Some(gene) => {
                        let letter = letters.get(gene).copied().unwrap_or(INACTIVE_LETTER);
                        let name = &self.genes()[gene].name;
                        problem.within(format!(
                            "gene {} ({name}: {})",
                            gene + 1,
                            char::from(letter)
                        ))
                    }
                    None => problem,
                };
                problem.within(format!("genotype {}", shown(&String::from_utf8_lossy(letters))))
            })?;
        }
        let output = state.current.map_or(-1, |wire| wire.node);
        Ok(self.written(letters, writer, output))
    }

    fn written(&self, letters: &[u8], writer: Writer<'_>, output: i64) -> NetworkSpec {
        let Writer { input, mut nodes, .. } = writer;
        let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node.op.as_deref()).collect();
        let own = self.own_ops.iter().filter(|def| {
            used.contains(def.name.as_str())
                || def.aliases.iter().any(|name| used.contains(name.as_str()))
        });
        let own: Vec<_> = own.cloned().collect();
        let mut spec = NetworkSpec {
            id: Some(ExternalId::text(&self.genotype(letters))),
            input,
            ops: (!own.is_empty()).then_some(own),
            ..NetworkSpec::default()
        };
        let in_a_row = |(index, node): (i64, &NodeSpec)| node.inputs == Some(vec![index - 1]);
        let last = i64::try_from(nodes.len()).unwrap_or(i64::MAX) - 1;
        if output == last && (0i64..).zip(&nodes).all(in_a_row) {
            nodes.iter_mut().for_each(|node| node.inputs = None);
            spec.layers = Some(nodes.into_iter().map(LayerSpec::Full).collect());
        } else {
            (spec.nodes, spec.output) = (Some(nodes), Some(output));
        }
        spec
    }

    /// The keys of a network in running order, from its plan.
    pub(super) fn planned_keys(&self, letters: &[u8], keys: &mut Vec<u32>) -> Result<(), Invalid> {
        if self.walk(letters, |_| {}).is_err() {
            return Err(self.explain(letters));
        }
        let spec = self.interpret(letters)?;
        let plan = Network::new(&spec, self.catalog())?.plan(self.catalog())?;
        for step in &plan.steps {
            let key = self.ops.number(&step.op, &step.key.shape);
            keys.push(
                key.ok_or_else(|| Invalid::new(step.key.to_string(), "is no key of the space"))?,
            );
        }
        Ok(())
    }
}
