//! Networks made of the keys of a space, on which a table of these keys can be calibrated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;

use super::layer;
use crate::spec::{Input, LayerSpec, NetworkSpec};
use crate::{Op, OpKey, Space, TensorShape};

/// Fewest ops of such a network. A shorter one says little about costs between ops.
const FEWEST_OPS: usize = 4;

/// The most ops. A walk over ops that keep their shape would never end.
const MOST_OPS: usize = 24;

/// The seed for the networks that calibrate a table. The same for everybody, so that two requests for one space ask for
/// the same networks.
pub const CALIBRATION_SEED: u64 = 1;

/// Walks that are tried for each network.
const TRIES: usize = 40;

/// One key of the space, as a step of a walk.
struct Place<'a> {
    key: &'a OpKey,
    input: TensorShape,
    output: TensorShape,
}

impl Space {
    /// Whole networks whose ops are all keys of the space: walks from key to key, where the output of one is the input
    /// of the next. They calibrate a table that has only these rows. The same space and seed give the same networks.
    /// The result has fewer than requested if few keys fit one another.
    pub fn networks(&self, count: usize, seed: u64) -> Vec<NetworkSpec> {
        let places: Vec<Place<'_>> = self
            .entries
            .iter()
            .filter_map(|(key, op): &(OpKey, Arc<Op>)| {
                let plan = op.at(&key.shape).ok()?;
                Some(Place { key, input: plan.input, output: plan.output })
            })
            .collect();
        let mut by_input: HashMap<TensorShape, Vec<usize>> = HashMap::new();
        for (index, place) in places.iter().enumerate() {
            by_input.entry(place.input).or_default().push(index);
        }
        let made: HashSet<TensorShape> = places.iter().map(|place| place.output).collect();
        // A network begins with a map, preferably one that no other key produces.
        let begins = |&place: &usize| matches!(places[place].input, TensorShape::Map { .. });
        let mut first: Vec<usize> = (0..places.len()).filter(begins).collect();
        if first.iter().any(|&place| !made.contains(&places[place].input)) {
            first.retain(|&place| !made.contains(&places[place].input));
        }
        if first.is_empty() {
            return Vec::new();
        }
        let mut rng = Rng::with_seed(seed);
        let mut known: HashSet<Vec<usize>> = HashSet::new();
        let mut networks = Vec::new();
        while networks.len() < count {
            let walk = (0..TRIES)
                .map(|_| walk(&places, &first, &by_input, &mut rng))
                .filter(|walk| walk.len() >= FEWEST_OPS && !known.contains(walk))
                .max_by_key(Vec::len);
            let Some(walk) = walk else { break };
            networks.push(self.network(&walk, &places, seed, networks.len()));
            known.insert(walk);
        }
        networks
    }

    fn network(
        &self,
        walk: &[usize],
        places: &[Place<'_>],
        seed: u64,
        index: usize,
    ) -> NetworkSpec {
        let shape = places[walk[0]].key.shape;
        let layers = walk.iter().map(|&place| {
            let OpKey { op, shape } = places[place].key;
            LayerSpec::Full(layer(op, shape.channels_out, shape.stride))
        });
        NetworkSpec {
            name: Some(format!("{}-{seed}-{index}", self.name)),
            input: Some(Input {
                n: shape.batch,
                c: shape.channels_in,
                h: shape.input_h,
                w: shape.input_w,
            }),
            layers: Some(layers.collect()),
            ..NetworkSpec::default()
        }
    }
}

/// Starts at one of the first places, and steps to any place that fits, until none does.
fn walk(
    places: &[Place<'_>],
    first: &[usize],
    by_input: &HashMap<TensorShape, Vec<usize>>,
    rng: &mut Rng,
) -> Vec<usize> {
    let mut walk = vec![first[rng.usize(..first.len())]];
    while walk.len() < MOST_OPS {
        let output = places[walk[walk.len() - 1]].output;
        let Some(next) = by_input.get(&output) else { break };
        walk.push(next[rng.usize(..next.len())]);
    }
    walk
}
