//! The family `transformer`.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::{Drawn, layer, pick};

const RESOLUTIONS: [u32; 4] = [128, 160, 192, 224];
const PATCHES: [u32; 2] = [16, 32];
const WIDTHS: [u32; 5] = [128, 192, 256, 384, 512];

/// Encoder layers. The name contains the channels of a head and the width of the MLP.
const LAYERS: [&str; 4] = [
    "TransformerEncoder",
    "TransformerEncoder_MLP2",
    "TransformerEncoder_Dim32",
    "TransformerEncoder_Dim32_MLP2",
];

const DEPTHS: RangeInclusive<u64> = 4..=14;

/// Bounds of the encoder's multiply-accumulates, which limit its depth: between a few milliseconds and a tenth of a
/// second on one core of a desktop CPU.
const WORK: RangeInclusive<u64> = 30_000_000..=3_000_000_000;

/// Draws resolution, patch, width and depth for the network, and heads and MLP for each layer, as in AutoFormer
/// (arXiv 2107.00651).
pub(super) fn network(rng: &mut Rng) -> Drawn {
    let resolution = pick(rng, &RESOLUTIONS);
    let patch = pick(rng, &PATCHES);
    let width = pick(rng, &WIDTHS);
    let depth = rng.u64(depths(resolution, patch, width));
    let mut layers = vec![layer("PatchEmbed", width, patch)];
    layers.extend((0..depth).map(|_| layer(pick(rng, &LAYERS), width, 1)));
    layers.push(layer("ClassTokenHead", 1000, 1));
    Drawn { resolution, layers }
}

/// Depths at which the work of the encoder is within [`WORK`].
fn depths(resolution: u32, patch: u32, width: u32) -> RangeInclusive<u64> {
    let tokens = u64::from(resolution / patch).pow(2) + 1;
    // Four projections of attention and an MLP of four times the width.
    let work_of_one = 12 * tokens * u64::from(width).pow(2);
    let within = |depth: u64| depth.clamp(*DEPTHS.start(), *DEPTHS.end());
    within(WORK.start() / work_of_one)..=within(WORK.end() / work_of_one)
}
