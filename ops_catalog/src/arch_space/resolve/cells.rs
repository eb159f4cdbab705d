//! Cells, and their genes.

use super::Resolver;
use crate::Invalid;
use crate::arch_space::program::{Cell, CellGene, CellNode, Gene, MAX_OPTIONS};
use crate::arch_space::spec::{CellDef, EdgesDef, OptionFields, OutputDef};

/// The most nodes of a cell.
const MAX_CELL_NODES: u32 = 8;

impl Resolver<'_> {
    pub(super) fn cell(&mut self, name: &str, def: &CellDef) -> Result<(), Invalid> {
        let place = format!("cells.{name}");
        let at = |field: &str| format!("{place}.{field}");
        self.check_name(name, &place)?;
        def.check(&place)?;
        let fields: Vec<(String, &OptionFields)> = def
            .ops
            .iter()
            .enumerate()
            .map(|(index, option)| (format!("{}[{index}]", at("ops")), &option.0))
            .collect();
        let options = self.options(&fields, &at("ops"))?;
        let adapt = match &def.adapt {
            None => None,
            Some(adapt) => {
                let op = self.op_name(&adapt.op, &[], &at("adapt.op"))?;
                let strided = adapt.strided.as_ref();
                let strided =
                    strided.map(|op| self.op_name(op, &[], &at("adapt.strided"))).transpose()?;
                Some((op, strided))
            }
        };
        if let Some(option) = options.iter().find(|option| option.layers.is_empty()) {
            let problem = format!(
                "`{}` has no op: an edge that passes its value on is `Identity`",
                option.label
            );
            return Err(Invalid::new(at("ops"), problem));
        }
        let layers = options.iter().map(|option| option.layers.len()).max().unwrap_or_default();
        let nodes = def.resolved_nodes();
        if let Some(node) = nodes.iter().find(|node| node.sources.len() > MAX_OPTIONS) {
            let problem = format!(
                "a node can read {} sets of earlier values, and a gene has at most {MAX_OPTIONS} options",
                node.sources.len()
            );
            return Err(Invalid::new(at("edges"), problem));
        }
        self.program.cells.push(Cell {
            place,
            inputs: def.inputs as usize,
            adapt,
            nodes,
            concat: def.output == OutputDef::Concat,
            options,
            layers: u32::try_from(layers).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    /// The genes of all cells, which stand after those of the body.
    pub(super) fn cell_genes(&mut self) -> Result<(), Invalid> {
        for cell in 0..self.program.cells.len() {
            let name = &self.def.cells.0[cell].0;
            if self.program.uses.iter().all(|used| used.cell != cell) {
                let place = self.program.cells[cell].place.clone();
                return Err(Invalid::new(place, "is used by no element of the body"));
            }
            for node in 0..self.program.cells[cell].nodes.len() {
                self.node_genes(name, cell, node)?;
            }
        }
        Ok(())
    }

    fn node_genes(&mut self, name: &str, cell: usize, node: usize) -> Result<(), Invalid> {
        let Cell { place, inputs, options, nodes, .. } = self.program.cells[cell].clone();
        let value = inputs + node;
        let CellNode { sources, edges, .. } = &nodes[node];
        if sources.len() > 1 {
            let set = |set: &Vec<usize>| {
                let numbers: Vec<String> = set.iter().map(usize::to_string).collect();
                numbers.join(" and ")
            };
            let gene = self.gene(Gene {
                name: format!("{name} inputs of {value}"),
                options: sources.iter().map(set).collect(),
                optional: false,
                place: format!("{place}.edges"),
                allowed: vec![true; sources.len()],
            })?;
            self.program.cells[cell].nodes[node].gene = Some(gene);
            self.program.cell_genes.push(CellGene { cell, node, edge: None });
        }
        if options.len() == 1 {
            return Ok(());
        }
        let place = format!("{place}.ops");
        let allowed = self.allowed_options(&options, &place)?;
        for edge in 0..edges.len() {
            let gene = self.gene(Gene {
                name: match sources.as_slice() {
                    [only] => format!("{name} edge {}-{value}", only[edge]),
                    _ => format!("{name} op {} of {value}", edge + 1),
                },
                options: options.iter().map(|option| option.label.clone()).collect(),
                optional: false,
                place: place.clone(),
                allowed: allowed.clone(),
            })?;
            self.program.cells[cell].nodes[node].edges[edge] = Some(gene);
            self.program.cell_genes.push(CellGene { cell, node, edge: Some(edge) });
        }
        Ok(())
    }
}

impl CellDef {
    fn check(&self, place: &str) -> Result<(), Invalid> {
        let at =
            |field: &str, problem: String| Err(Invalid::new(format!("{place}.{field}"), problem));
        if !(1..=2).contains(&self.inputs) {
            return at("inputs", format!("is {}; it is 1 or 2", self.inputs));
        }
        if !(1..=MAX_CELL_NODES).contains(&self.nodes) {
            let problem = format!("is {}; it lies between 1 and {MAX_CELL_NODES}", self.nodes);
            return at("nodes", problem);
        }
        match self.edges {
            EdgesDef::Some(edges) if edges == 0 || edges > self.inputs => {
                let most = self.inputs;
                let problem = "the first node reads at least 1 value and at most";
                at("edges", format!("is {edges}; {problem} {most}"))
            }
            EdgesDef::Some(_) if self.output == OutputDef::Last && self.nodes > 1 => at(
                "output",
                "is `last`, and then a node that no later one reads leads nowhere: write `concat`, or \
                 `edges: all`"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn resolved_nodes(&self) -> Vec<CellNode> {
        let (inputs, nodes) = (self.inputs as usize, self.nodes as usize);
        let node = |node: usize| {
            let before = inputs + node;
            let sources = match self.edges {
                EdgesDef::All => vec![(0..before).collect()],
                EdgesDef::Some(edges) => subsets(before, edges as usize),
            };
            let edges = sources[0].len();
            // Read by the next node alone, its edges are the inputs of that node's op.
            let read_once = self.output == OutputDef::Last && node + 2 == nodes;
            CellNode {
                sources,
                gene: None,
                edges: vec![None; edges],
                summed: edges > 1 && !read_once,
            }
        };
        (0..nodes).map(node).collect()
    }
}

/// Every set of so many of the numbers below a bound, in lexicographic order.
fn subsets(below: usize, size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![vec![]];
    }
    let longer = |set: Vec<usize>| {
        let next = set.last().map_or(0, |last| last + 1);
        (next..below).map(move |next| set.iter().copied().chain([next]).collect())
    };
    subsets(below, size - 1).into_iter().flat_map(longer).collect()
}

#[cfg(test)]
mod tests {
    use super::subsets;

    #[test]
    fn subsets_are_in_order() {
        assert_eq!(subsets(2, 2), [[0, 1]]);
        assert_eq!(subsets(3, 2), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!(subsets(5, 2).len(), 10);
        assert_eq!(subsets(3, 1), [[0], [1], [2]]);
        assert!(subsets(1, 2).is_empty());
    }
}
