//! Random networks for the evaluation of predictions. The same seed always gives the same networks.

mod mobilenet;
mod transformer;
mod walk;

pub use walk::CALIBRATION_SEED;

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

use crate::Invalid;
use crate::error::shown;
use crate::spec::{Input, LayerSpec, NetworkSpec, NodeSpec};

/// A kind of random network. The built-in space of the same name has every key of every one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Sequences of inverted residuals in the manner of MobileNetV2 and MobileNetV3: 8 to 18 blocks,
    /// images of 128 to 224 pixels.
    Mobilenet,
    /// Vision transformers: 4 to 14 encoder layers of 128 to 512 channels, images of 128 to 224 pixels.
    Transformer,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 2] = [Family::Mobilenet, Family::Transformer];

    /// Its name, which is also the name of its space.
    pub fn name(self) -> &'static str {
        match self {
            Family::Mobilenet => "mobilenet",
            Family::Transformer => "transformer",
        }
    }

    /// An endless sequence of networks, named `FAMILY-SEED-INDEX`. Each depends only on the seed and its index.
    pub fn draw(self, seed: u64) -> impl Iterator<Item = NetworkSpec> {
        let mut seeds = Rng::with_seed(seed);
        (0u64..).map(move |index| {
            let mut rng = seeds.fork();
            let Drawn { resolution, layers } = match self {
                Family::Mobilenet => mobilenet::network(&mut rng),
                Family::Transformer => transformer::network(&mut rng),
            };
            NetworkSpec {
                name: Some(format!("{self}-{seed}-{index}")),
                family: Some(self.name().to_owned()),
                input: Some(Input { n: 1, c: 3, h: resolution, w: resolution }),
                layers: Some(layers.into_iter().map(LayerSpec::Full).collect()),
                ..NetworkSpec::default()
            }
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Family, Invalid> {
        Family::ALL.into_iter().find(|family| family.name() == text).ok_or_else(|| {
            let known = Family::ALL.map(Family::name).join(", ");
            Invalid::new(
                format!("family {}", shown(text)),
                format!("there is no such family; those that can be drawn are {known}"),
            )
        })
    }
}

/// A sequence over one square image of three channels.
struct Drawn {
    resolution: u32,
    layers: Vec<NodeSpec>,
}

fn layer(op: impl Into<String>, c_out: u32, stride: u32) -> NodeSpec {
    NodeSpec {
        op: Some(op.into()),
        c_out: Some(c_out),
        stride: Some(stride),
        ..NodeSpec::default()
    }
}

/// A random item.
fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}
