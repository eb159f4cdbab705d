//! The memory that activations of a network need at the same time.

use crate::network::{NetworkPlan, Value};
use crate::op::Source;
use crate::tensor::TensorShape;

/// A tensor that holds memory, by index.
type Storage = usize;

/// The first storage: the network's input.
const INPUT: Storage = 0;

/// One primitive of a network: what it reads, and what it stores.
struct Run {
    reads: Vec<Storage>,
    stores: Vec<Storage>,
    /// Whether its output may take the place of its input.
    in_place: bool,
}

/// The primitives of a network in the order in which they run, and the size of each tensor.
#[derive(Default)]
struct Runs {
    runs: Vec<Run>,
    elements: Vec<u64>,
}

impl NetworkPlan {
    /// The most elements of activations that exist at the same time while the network runs, its input included, which the
    /// caller keeps. A tensor is freed after its last use. Views share the memory of what they show, and an activation
    /// function works in place if nothing else reads its input. Scratch memory inside of kernels is not counted.
    pub fn peak_activation_elements(&self) -> u64 {
        self.runs().peak()
    }

    fn runs(&self) -> Runs {
        let mut runs = Runs { elements: vec![self.input.shape().elements()], ..Runs::default() };
        let mut results: Vec<Storage> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let value = |value: &Value| match *value {
                Value::Input => INPUT,
                Value::Of(step) => results[step],
            };
            let inputs: Vec<Storage> = step.inputs.iter().map(value).collect();
            if step.merge.is_some() {
                // The merge of whole values. The primitives of its op split one tensor into parts first.
                let stores = runs.store(&[step.plan.output]);
                results.push(stores[0]);
                runs.runs.push(Run { reads: inputs, stores, in_place: false });
                continue;
            }
            // By node and output.
            let mut nodes: Vec<Vec<Storage>> = Vec::with_capacity(step.plan.steps.len());
            let source = |nodes: &[Vec<Storage>], source: &Source| match *source {
                Source::Input => inputs[0],
                Source::Node { index, port } => nodes[index][port],
            };
            for inner in &step.plan.steps {
                let reads: Vec<Storage> =
                    inner.inputs.iter().map(|input| source(&nodes, input)).collect();
                // A primitive that moves nothing gives a view of its input.
                if inner.cost.activation_elements == 0 {
                    nodes.push(vec![reads[0]; inner.outputs.len()]);
                    runs.runs.push(Run { reads, stores: vec![], in_place: false });
                    continue;
                }
                let stores = runs.store(&inner.outputs);
                nodes.push(stores.clone());
                let in_place = inner.primitive.is_activation();
                runs.runs.push(Run { reads, stores, in_place });
            }
            results.push(source(&nodes, &step.plan.result));
        }
        // The caller gets the result.
        let result = results.last().copied().unwrap_or(INPUT);
        runs.runs.push(Run { reads: vec![result], stores: vec![], in_place: false });
        runs
    }
}

impl Runs {
    fn store(&mut self, shapes: &[TensorShape]) -> Vec<Storage> {
        let first = self.elements.len();
        self.elements.extend(shapes.iter().map(TensorShape::elements));
        (first..self.elements.len()).collect()
    }

    fn peak(&self) -> u64 {
        let mut last_use = vec![0; self.elements.len()];
        for (place, run) in self.runs.iter().enumerate() {
            for &storage in run.reads.iter().chain(&run.stores) {
                last_use[storage] = place;
            }
        }
        let mut used = self.elements[INPUT];
        let mut peak = used;
        for (place, run) in self.runs.iter().enumerate() {
            let mut ending: Vec<Storage> =
                run.reads.iter().copied().filter(|&s| s != INPUT && last_use[s] == place).collect();
            ending.sort_unstable();
            ending.dedup();
            let of = |all: &[Storage]| all.iter().map(|&s| self.elements[s]).sum::<u64>();
            if run.in_place && ending == run.reads {
                used = used + of(&run.stores) - of(&ending);
                peak = peak.max(used);
            } else {
                used += of(&run.stores);
                peak = peak.max(used);
                used -= of(&ending);
            }
            // An output that nothing reads is freed at once.
            let unread: Vec<Storage> =
                run.stores.iter().copied().filter(|&s| last_use[s] == place).collect();
            used -= of(&unread);
        }
        peak
    }
}

#[cfg(test)]
mod tests {
    use crate::{Catalog, Network, NetworkSpec};

    fn peak(json: &str) -> u64 {
        let catalog = Catalog::builtin();
        let spec = NetworkSpec::from_yaml(json).unwrap();
        Network::new(&spec, catalog).unwrap().plan(catalog).unwrap().peak_activation_elements()
    }

    #[test]
    fn a_sequence_holds_one_tensor_and_the_next() {
        // 4x8x8 in, 16x8x8 out, then 2x8x8: the input stays with its caller.
        let text = "{input: {n: 1, c: 4, h: 8, w: 8}, layers: [{op: Conv3x3, c_out: 16, stride: 1}, {op: Conv3x3, c_out: 2, stride: 1}]}";
        assert_eq!(peak(text), (4 + 16 + 2) * 64);
    }

    #[test]
    fn an_activation_takes_the_place_of_its_input_unless_that_is_read_again() {
        let layers = |op: &str| {
            peak(&format!(
                "{{input: {{n: 1, c: 4, h: 8, w: 8}}, layers: [{{op: {op}, c_out: 16, stride: 1}}]}}"
            ))
        };
        assert_eq!(layers("Conv3x3_ReLU"), layers("Conv3x3"));
        // The caller's tensor is not overwritten.
        assert_eq!(layers("Conv3x3"), (4 + 16) * 64);
        let relu = "{input: {n: 1, c: 4, h: 8, w: 8}, layers: [{op: ReLU, c_out: 4, stride: 1}]}";
        assert_eq!(peak(relu), 2 * 4 * 64);
    }

    #[test]
    fn a_branch_stays_until_it_is_merged() {
        let text = "{input: {n: 1, c: 4, h: 8, w: 8}, output: 3, nodes: [
            {op: Conv3x3, inputs: [-1], c_out: 8, stride: 1}, {op: Conv3x3, inputs: [0], c_out: 32, stride: 1},
            {op: Conv3x3, inputs: [1], c_out: 8, stride: 1},
            {op: Conv1x1, inputs: [0, 2], merge: add, c_out: 1, stride: 1}]}";
        // While `c` is computed, `a` waits for it.
        assert_eq!(peak(text), (4 + 8 + 32 + 8) * 64);
    }

    #[test]
    fn every_network_of_the_catalog_needs_at_least_its_largest_op_and_at_most_all() {
        let catalog = Catalog::builtin();
        for spec in catalog.networks() {
            let plan = Network::new(spec, catalog).unwrap().plan(catalog).unwrap();
            let runs = plan.runs();
            let largest = plan.steps.iter().map(|step| step.plan.output.elements()).max().unwrap();
            let peak = plan.peak_activation_elements();
            assert!(peak >= largest && peak <= runs.elements.iter().sum(), "{:?}", spec.name);
        }
    }
}
