//! Uses of cells.

use super::{Builder, Call, Open, Problem, Run, State, Wire, impossible, ratio};
use crate::Invalid;
use crate::arch_space::program::{Alternative, Cell, CellGene, CellUse};
use crate::spec::Merge;
use crate::tensor::TensorShape;

impl Run<'_> {
    /// The inputs of a use, each brought to the cell's width and size.
    fn adapted(&mut self, used: &CellUse, state: &State, c_out: u32) -> Result<Vec<Wire>, Problem> {
        let cell = &self.program.cells[used.cell];
        let inputs = match (used.inputs.is_empty(), cell.inputs) {
            (true, 2) => {
                let before = state.before.ok_or_else(|| {
                    let problem =
                        "no two elements stand before it: name what it reads under `inputs`";
                    Problem::Definition(Invalid::new("", problem))
                })?;
                [Some(before), state.current].into_iter().flatten().collect()
            }
            _ => self.read(&used.inputs, state),
        };
        let Some((op, strided)) = &cell.adapt else { return Ok(inputs) };
        let smallest = inputs.iter().min_by_key(|wire| wire.shape.positions()).copied();
        let Some(smallest) = smallest else { return Ok(inputs) };
        let mut adapted = Vec::with_capacity(inputs.len());
        for (slot, &input) in (used.slot..).zip(&inputs) {
            let stride = ratio(&input, &smallest);
            let op = match strided {
                Some(strided) if stride > 1 => self.name(strided, state),
                _ => self.name(op, state),
            };
            let call = Call { op: &op, c_out, stride, merge: Merge::Add, inputs: &[input] };
            adapted.push(self.builder.add(slot, &call)?);
        }
        Ok(adapted)
    }

    /// Width and stride of a use.
    fn sizes(&self, used: &CellUse, state: &State) -> Result<(u32, u32), Problem> {
        let current = state.current.ok_or_else(|| impossible("nothing is there to be read"))?;
        let c_out = self.channels(&used.c_out, state, &current, 1)?;
        Ok((c_out, self.whole(&used.stride, state, &current, 1)?))
    }

    /// A use of a cell whose genes are known.
    pub(super) fn cell(
        &mut self,
        used: usize,
        state: &mut State,
        options: &[Option<u8>],
    ) -> Result<(), Problem> {
        let used = &self.program.uses[used];
        let cell = &self.program.cells[used.cell];
        let (c_out, stride) = self.sizes(used, state)?;
        let adapted = self.adapted(used, state, c_out)?;
        let mut values: Vec<Vec<Wire>> = adapted.into_iter().map(|wire| vec![wire]).collect();
        let known = |gene: Option<usize>| match gene {
            Some(gene) => options[gene].map(usize::from).ok_or(Problem::Unknown(gene)),
            None => Ok(0),
        };
        for (index, node) in cell.nodes.iter().enumerate() {
            let sources = &node.sources[known(node.gene)?];
            let mut parts = Vec::with_capacity(sources.len());
            for (edge, (&source, &gene)) in sources.iter().zip(&node.edges).enumerate() {
                let option = &cell.options[known(gene)?];
                let sizes = (Some(c_out), if source < cell.inputs { stride } else { 1 });
                let slot = cell.edge_slot(used.slot, index, edge);
                let inputs = values[source].clone();
                parts.extend(self.layers(option, inputs, Merge::Add, sizes, slot, state)?);
            }
            if node.summed {
                let slot = cell.edge_slot(used.slot, index, node.edges.len());
                parts = vec![self.sum(&parts, Merge::Add, slot)?];
            }
            values.push(parts);
        }
        state.current = Some(self.output(cell, used, &values)?);
        Ok(())
    }

    fn output(
        &mut self,
        cell: &Cell,
        used: &CellUse,
        values: &[Vec<Wire>],
    ) -> Result<Wire, Problem> {
        let nodes: Vec<Wire> = values[cell.inputs..].iter().flatten().copied().collect();
        match (cell.concat, nodes.as_slice()) {
            (true, [_, _, ..]) => self.sum(&nodes, Merge::Concat, cell.output_slot(used.slot)),
            // The last node of several is a sum.
            (_, [.., last]) => Ok(*last),
            (_, []) => Err(impossible("it has no node")),
        }
    }

    /// A use of a cell whose genes are read later: only what does not depend on them is built.
    pub(in crate::arch_space) fn open(
        &mut self,
        number: usize,
        state: &mut State,
    ) -> Result<(), Problem> {
        let used = &self.program.uses[number];
        self.opened(number, used, state).map_err(|e| e.within(&used.place))
    }

    fn opened(&mut self, number: usize, used: &CellUse, state: &mut State) -> Result<(), Problem> {
        let cell = &self.program.cells[used.cell];
        let (c_out, stride) = self.sizes(used, state)?;
        let adapted = self.adapted(used, state, c_out)?;
        let one = |wire: &Wire| (wire.shape, 1);
        let values = adapted.iter().map(one).collect();
        let mut open = Open { used: number, c_out, stride, values };
        let mut wires: Vec<Vec<Wire>> = adapted.into_iter().map(|wire| vec![wire]).collect();
        for (index, node) in cell.nodes.iter().enumerate() {
            let shape = self.node_shape(cell, index, &open, state)?;
            if let ([sources], [only]) = (node.sources.as_slice(), cell.options.as_slice()) {
                for (edge, &source) in sources.iter().enumerate() {
                    let (inputs, stride) = open.edge(cell, source);
                    let slot = cell.edge_slot(used.slot, index, edge);
                    self.layers(only, inputs, Merge::Add, (Some(c_out), stride), slot, state)?;
                }
            }
            let mut parts = vec![Wire { shape, node: 0 }; node.edges.len()];
            if node.summed {
                let slot = cell.edge_slot(used.slot, index, node.edges.len());
                parts = vec![self.sum(&parts, Merge::Add, slot)?];
            }
            open.values.push((shape, parts.len()));
            wires.push(parts);
        }
        state.current = Some(self.output(cell, used, &wires)?);
        if self.program.cell_genes.iter().any(|gene| gene.cell == used.cell) {
            state.open.push(open);
        }
        Ok(())
    }

    /// The shape of a node, which has to be the same for all options of its edges.
    fn node_shape(
        &mut self,
        cell: &Cell,
        index: usize,
        open: &Open,
        state: &State,
    ) -> Result<TensorShape, Problem> {
        let mut found: Option<TensorShape> = None;
        let mut refused = None;
        let mut sources: Vec<usize> = cell.nodes[index].sources.concat();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            for option in &cell.options {
                match (self.edge_shape(cell, option, source, open, state), found) {
                    (Ok(shape), Some(other)) if shape != other => {
                        let problem = format!(
                            "all options of an edge have to give one shape: `{}` gives {shape}, another \
                             one {other}",
                            option.label
                        );
                        return Err(Problem::Definition(Invalid::new(cell.place.clone(), problem)));
                    }
                    (Ok(shape), _) => found = Some(shape),
                    (Err(Problem::Impossible(problem)), _) => refused = Some(problem),
                    (Err(other), _) => return Err(other),
                }
            }
        }
        found.ok_or_else(|| match refused {
            Some(problem) => Problem::Impossible(problem.within(&cell.place)),
            None => impossible("no option is possible"),
        })
    }

    /// The shape that an option gives on an edge.
    fn edge_shape(
        &mut self,
        cell: &Cell,
        option: &Alternative,
        source: usize,
        open: &Open,
        state: &State,
    ) -> Result<TensorShape, Problem> {
        let (inputs, stride) = open.edge(cell, source);
        let mut dry = Dry(self.builder);
        let mut run = Run { program: self.program, builder: &mut dry };
        let output =
            run.layers(option, inputs, Merge::Add, (Some(open.c_out), stride), 0, state)?;
        output.first().map(|wire| wire.shape).ok_or_else(|| impossible("it gives nothing"))
    }

    /// A gene of a cell: what its option adds to all uses of the cell.
    pub(in crate::arch_space) fn cell_gene(
        &mut self,
        gene: CellGene,
        option: u8,
        state: &mut State,
    ) -> Result<(), Problem> {
        let cell = &self.program.cells[gene.cell];
        let node = &cell.nodes[gene.node];
        let Some(edge) = gene.edge else {
            state.picked = Some(option);
            if node.edges.iter().all(Option::is_none) {
                // The only option of each edge has no gene of its own.
                (0..node.edges.len()).try_for_each(|edge| self.cell_edge(gene, edge, 0, state))?;
                self.close(gene, state);
            }
            return Ok(());
        };
        self.cell_edge(gene, edge, option, state)?;
        if edge + 1 == node.edges.len() {
            self.close(gene, state);
        }
        Ok(())
    }

    fn cell_edge(
        &mut self,
        gene: CellGene,
        edge: usize,
        option: u8,
        state: &State,
    ) -> Result<(), Problem> {
        let program = self.program;
        let cell = &program.cells[gene.cell];
        let sources = &cell.nodes[gene.node].sources[usize::from(state.picked.unwrap_or(0))];
        for open in &state.open {
            let used = &program.uses[open.used];
            if used.cell != gene.cell {
                continue;
            }
            let (inputs, stride) = open.edge(cell, sources[edge]);
            let slot = cell.edge_slot(used.slot, gene.node, edge);
            let option = &cell.options[usize::from(option)];
            self.layers(option, inputs, Merge::Add, (Some(open.c_out), stride), slot, state)
                .map_err(|e| e.within(&used.place))?;
        }
        Ok(())
    }

    /// Forgets what only the genes of one node needed, and after the last node the uses of the cell.
    fn close(&self, gene: CellGene, state: &mut State) {
        state.picked = None;
        let mut of_cell = self.program.cell_genes.iter().filter(|other| other.cell == gene.cell);
        if of_cell.next_back().is_some_and(|last| last.node == gene.node) {
            state.open.retain(|open| self.program.uses[open.used].cell != gene.cell);
        }
    }
}

impl Open {
    /// What an edge from a value reads, and its stride.
    fn edge(&self, cell: &Cell, source: usize) -> (Vec<Wire>, u32) {
        let (shape, parts) = self.values[source];
        let stride = if source < cell.inputs { self.stride } else { 1 };
        (vec![Wire { shape, node: 0 }; parts], stride)
    }
}

/// A builder that adds nothing.
struct Dry<'a>(&'a mut dyn Builder);

impl Builder for Dry<'_> {
    fn shape(&mut self, call: &Call<'_>) -> Result<TensorShape, Problem> {
        self.0.shape(call)
    }

    fn add(&mut self, _slot: u32, call: &Call<'_>) -> Result<Wire, Problem> {
        Ok(Wire { shape: self.0.shape(call)?, node: 0 })
    }

    fn input(&mut self, _shape: TensorShape) -> Result<(), Problem> {
        Ok(())
    }
}
