//! The family `mobilenet`.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::{Drawn, layer, pick};
use crate::make_divisible;
use crate::spec::NodeSpec;

const RESOLUTIONS: [u32; 4] = [128, 160, 192, 224];

/// Number of inverted residuals of a network, the first one and a closing one included.
const BLOCKS: RangeInclusive<usize> = 8..=18;

/// A stage between stem and head: output channels, stride of its first block, and the suffix of its blocks' names.
type Stage = (u32, u32, &'static str);

/// The constants of one design.
struct Design {
    stem: NodeSpec,
    first: NodeSpec,
    stages: [Stage; 5],
    /// A single block after the stages.
    closing: Option<Stage>,
    head: Vec<NodeSpec>,
}

/// MobileNetV2 at width 1.0 (arXiv 1801.04381).
fn v2() -> Design {
    Design {
        stem: layer("Conv3x3_ReLU6", 32, 2),
        first: layer("MBConv1_3x3", 16, 1),
        stages: [(24, 2, ""), (32, 2, ""), (64, 2, ""), (96, 1, ""), (160, 2, "")],
        closing: Some((320, 1, "")),
        head: vec![
            layer("Conv1x1_ReLU6", 1280, 1),
            layer("GlobalAvgPool", 1280, 1),
            layer("Linear", 1000, 1),
        ],
    }
}

/// MobileNetV3 (arXiv 1905.02244) at a width in quarters, which also scales the head.
fn v3(quarters: u32) -> Design {
    let width = |channels: u32| make_divisible(channels * quarters / 4, 8);
    let last = 6 * width(160);
    Design {
        stem: layer("Conv3x3_Hardswish", width(16), 2),
        first: layer("MBConv1_3x3_ReLU", width(16), 1),
        stages: [
            (width(24), 2, "_ReLU"),
            (width(40), 2, "_ReLU"),
            (width(80), 2, "_Hardswish"),
            (width(112), 1, "_Hardswish"),
            (width(160), 2, "_Hardswish"),
        ],
        closing: None,
        head: vec![
            layer("Conv1x1_Hardswish", last, 1),
            layer("GlobalAvgPool", last, 1),
            layer("Linear_Hardswish", width(1280), 1),
            layer("Linear", 1000, 1),
        ],
    }
}

/// Draws the design, the resolution, the number of blocks and their distribution over the stages for the network, and
/// expansion, kernel and squeeze-and-excite for each block.
pub(super) fn network(rng: &mut Rng) -> Drawn {
    let resolution = pick(rng, &RESOLUTIONS);
    // Each width is a design of its own, so wide and narrow networks are equally frequent.
    let design = match rng.u32(1..=4) {
        1 => v2(),
        quarters => v3(quarters),
    };
    let mut depths = [1; 5];
    let fewest = 1 + depths.len() + usize::from(design.closing.is_some());
    for _ in fewest..rng.usize(BLOCKS) {
        depths[rng.usize(..depths.len())] += 1;
    }
    let mut layers = vec![design.stem, design.first];
    for ((c_out, stride, ending), depth) in design.stages.into_iter().zip(depths) {
        layers.push(block(rng, ending, c_out, stride));
        layers.extend((1..depth).map(|_| block(rng, ending, c_out, 1)));
    }
    layers.extend(design.closing.map(|(c_out, stride, ending)| block(rng, ending, c_out, stride)));
    layers.extend(design.head);
    Drawn { resolution, layers }
}

fn block(rng: &mut Rng, ending: &str, c_out: u32, stride: u32) -> NodeSpec {
    let expansion = pick(rng, &[3, 6]);
    let kernel = pick(rng, &[3, 5]);
    let excite = pick(rng, &["", "_SE"]);
    layer(format!("MBConv{expansion}_{kernel}x{kernel}{excite}{ending}"), c_out, stride)
}
