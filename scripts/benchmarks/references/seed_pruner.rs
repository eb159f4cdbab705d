//! The pruner of the NAS guide's listing, made to compile: one latency for each kind of layer, FLOPs by formula for some of
//! them, one resolution, no params, the first reason as text, and 0.1 ms for a layer without a number.
//!
//! Reads lines `RESOLUTION LAYER:CHANNELS ...`, checks them in memory, and prints millions of candidates a second and how
//! many are valid.

use std::collections::HashMap;
use std::io::Read;
use std::time::Instant;

#[derive(Debug, Clone, Hash, Eq, PartialEq)]
enum LayerType {
    Conv3x3,
    Conv5x5,
    Identity,
    MaxPool,
    AvgPool,
    DepthwiseConv3x3,
    MBConv3,
    MBConv6,
}

struct Architecture {
    layers: Vec<LayerType>,
    input_resolution: u32,
    channels: Vec<u32>,
}

struct Constraint {
    max_layers: usize,
    max_flops: u64,
    max_conv5x5: usize,
    budget_ms: f32,
}

impl Architecture {
    fn latency(&self, lookup: &HashMap<LayerType, f32>) -> f32 {
        self.layers.iter().map(|layer| lookup.get(layer).unwrap_or(&0.1)).sum()
    }

    fn flops(&self) -> u64 {
        let square = |n: u32| u64::from(n) * u64::from(n);
        let area = square(self.input_resolution);
        let of = |(place, layer): (usize, &LayerType)| {
            let channels = square(*self.channels.get(place).unwrap_or(&32));
            match layer {
                LayerType::Conv3x3 => 9 * area * channels,
                LayerType::Conv5x5 => 25 * area * channels,
                LayerType::MBConv6 => 6 * area * channels,
                _ => 0,
            }
        };
        self.layers.iter().enumerate().map(of).sum()
    }

    fn problem(&self, limits: &Constraint, lookup: &HashMap<LayerType, f32>) -> Option<String> {
        if self.layers.len() > limits.max_layers {
            return Some(format!("Too many layers: {}", self.layers.len()));
        }
        let large = self.layers.iter().filter(|&layer| *layer == LayerType::Conv5x5).count();
        if large > limits.max_conv5x5 {
            return Some(format!("Too many expensive Conv5x5: {large}"));
        }
        let latency = self.latency(lookup);
        if latency > limits.budget_ms {
            return Some(format!("Latency budget exceeded: {latency:.2} > {:.2}", limits.budget_ms));
        }
        let flops = self.flops();
        if flops > limits.max_flops {
            return Some(format!("FLOPs budget exceeded: {flops} > {}", limits.max_flops));
        }
        None
    }
}

fn layer(name: &str) -> LayerType {
    match name {
        "Conv3x3" => LayerType::Conv3x3,
        "Conv5x5" => LayerType::Conv5x5,
        "MaxPool" => LayerType::MaxPool,
        "AvgPool" => LayerType::AvgPool,
        "DepthwiseConv3x3" => LayerType::DepthwiseConv3x3,
        "MBConv3_3x3" => LayerType::MBConv3,
        "MBConv6_3x3" => LayerType::MBConv6,
        _ => LayerType::Identity,
    }
}

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("the candidates are text");
    let candidates: Vec<Architecture> = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let input_resolution = words.next().and_then(|word| word.parse().ok()).expect("a resolution");
            let layers = words.map(|word| word.split_once(':').expect("LAYER:CHANNELS"));
            let (layers, channels) =
                layers.map(|(name, channels)| (layer(name), channels.parse::<u32>().expect("a number"))).unzip();
            Architecture { layers, input_resolution, channels }
        })
        .collect();
    let lookup = HashMap::from([
        (LayerType::Conv3x3, 1.5),
        (LayerType::Conv5x5, 4.2),
        (LayerType::MaxPool, 0.5),
        (LayerType::Identity, 0.05),
        (LayerType::AvgPool, 0.6),
        (LayerType::DepthwiseConv3x3, 0.8),
        (LayerType::MBConv3, 2.1),
        (LayerType::MBConv6, 3.5),
    ]);
    let limits = Constraint { max_layers: 50, max_flops: 1_000_000_000, max_conv5x5: 5, budget_ms: 25.0 };
    let mut fastest = f64::INFINITY;
    let mut valid = 0;
    for _ in 0..5 {
        let start = Instant::now();
        valid = candidates.iter().filter(|one| one.problem(&limits, &lookup).is_none()).count();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    println!("{:.3} {valid}", candidates.len() as f64 / 1e6 / fastest);
}
