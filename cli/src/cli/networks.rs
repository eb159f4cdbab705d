//! `latlas ops` and `latlas networks`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use latlas_shared::Dtype;
use ops_catalog::{Family, OpKey};

use super::values::{Dims, shape};
use super::{NetworkChoice, OpFiles};

/// `latlas ops`.
#[derive(Debug, Subcommand)]
pub enum Ops {
    /// List the ops
    #[command(after_help = "Example:\n  latlas ops list")]
    List {
        /// Ask the coordinator, whose list includes submitted ops
        #[arg(long)]
        farm: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show an op's definition, and its cost at a shape
    #[command(after_help = "Example:\n  latlas ops show MBConv6_3x3 --key n1-h56-w56-i24-o24-s1")]
    Show {
        /// Name or alias of the op
        op: String,
        /// A shape like `n1-h56-w56-i24-o24-s1`, alone or as a whole op key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Ask the coordinator, which also knows submitted ops
        #[arg(long)]
        farm: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write an op at a shape as an ONNX file
    #[command(after_help = "\
The file computes what the agent measures, in single precision. Names of weights are those of the op's nodes, such as
`conv2d-2.bias`.

Example:
  latlas ops export --key MBConv6_3x3:n1-h56-w56-i24-o24-s1 -o op.onnx
  latlas ops export --key Mine:n1-h8-w8-i3-o3-s1 --op-file mine.yaml -o mine.onnx")]
    Export(OpExport),
}

/// `latlas ops export`.
#[derive(Debug, Args)]
pub struct OpExport {
    /// The op and its shape, as in `MBConv6_3x3:n1-h56-w56-i24-o24-s1`
    #[arg(long, value_name = "KEY")]
    pub key: OpKey,
    /// A file with definitions of your own ops; repeatable
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
    /// Ask the coordinator, which also knows submitted ops
    #[arg(long)]
    pub farm: bool,
    /// The weights, and the file.
    #[command(flatten)]
    pub to: ExportTo,
}

/// The weights of an exported op or network, and the file that is written.
#[derive(Debug, Args)]
pub struct ExportTo {
    /// A safetensors file with all weights, in F32; random ones if not given
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub weights: Option<PathBuf>,
    /// Seed of the random weights
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Write to this file, which is replaced as a whole; `-` is stdout. Over 2 GiB, the weights are in a second file
    /// beside it, with `.data` after its name
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `latlas networks`.
#[derive(Debug, Subcommand)]
pub enum Networks {
    /// List the built-in networks
    #[command(after_help = "Example:\n  latlas networks list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show the definition of a built-in network, as JSON
    #[command(after_help = "\
Example:
  latlas networks show mobilenet_v2
  latlas networks show mobilenet_v2 --json >> set.ndjson")]
    Show {
        /// Name of the network
        network: String,
        /// Print the definition on one line
        #[arg(long)]
        json: bool,
    },
    /// Draw random networks, one JSON object a line
    #[command(after_help = "\
A network has the name FAMILY-SEED-INDEX and depends on these three only. The space with the name of the family
contains every op key of all its networks.

Example:
  latlas networks draw --family mobilenet --count 40 --seed 7 > set.ndjson
  latlas networks draw --family mobilenet --count 1 | latlas predict --table table.json --arch -")]
    Draw {
        /// The kind of network: `mobilenet` or `transformer`
        #[arg(long)]
        family: Family,
        /// Number of networks
        #[arg(long, value_name = "N")]
        count: usize,
        /// Seed of the random numbers; by default a new one, which is printed to stderr
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
    },
    /// Print all op keys of some networks, as a space
    #[command(after_help = "\
The output is a space file in YAML, for `latlas profile --space FILE` and `latlas-agent bench --space FILE`. A table
of this space predicts all of the networks.

Example:
  latlas networks keys --network resnet18 --network vit_b_32 > space.yaml
  latlas networks keys --arch set.ndjson > space.yaml")]
    Keys(NetworkKeys),
    /// Print the cost of networks: FLOPs, params, weights, activations and peak memory
    #[command(after_help = "\
No table and no device are needed. FLOPs are multiply-accumulates. `read and written` are the inputs and outputs of all
primitives, and `peak memory` is the weights with the activations that exist at the same time.

Example:
  latlas networks cost --network mobilenet_v2
  latlas networks cost --arch set.ndjson --dtype f16 --json")]
    Cost(NetworkCost),
    /// Read a model as a network: ONNX, or the .pt2 of torch.export
    #[command(after_help = "\
The weights are not needed, and not read without --weights. Blocks of the catalog are found in the model, so their rows
count; the rest becomes ops of the network's own, whose definitions are in the output. If parts of the model cannot be
expressed, they are listed, and there is no output.

Example:
  latlas networks import resnet18.pt2 -o resnet18.json
  latlas networks import model.onnx --input 1x3x224x224 -o model.json
  latlas networks import resnet18.pt2 -o resnet18.json --weights resnet18.safetensors
  latlas predict --table table.json --arch model.json")]
    Import(NetworkImport),
    /// Write a network as an ONNX file
    #[command(after_help = "\
The file computes what the agent measures, in single precision. Names of weights begin with the layer and its node, as
in `layers.3.conv2d-2.bias`.

Example:
  latlas networks export --network mobilenet_v2 -o net.onnx
  latlas networks export --arch mine.json --op-file mine.yaml --weights mine.safetensors -o mine.onnx")]
    Export(NetworkExport),
}

/// `latlas networks import`.
#[derive(Debug, Args)]
pub struct NetworkImport {
    /// The model, whose format is told by its content; `-` is stdin
    pub file: PathBuf,
    /// Name of the network; by default the name of the file without its extension
    #[arg(long)]
    pub name: Option<String>,
    /// Shape of the model's input, needed if it is dynamic: `1x3x224x224`
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    pub input: Option<Dims>,
    /// Write to this file, which is replaced as a whole
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write the model's weights, under the names that `networks export` has for them, as a safetensors file
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}

/// Networks, and where the definitions of their ops are.
#[derive(Debug, Args)]
pub struct NetworkSource {
    /// The networks.
    #[command(flatten)]
    pub of: NetworkChoice,
    /// Ops of the user's own.
    #[command(flatten)]
    pub ops: OpFiles,
    /// Ask the coordinator, so that networks can use submitted ops
    #[arg(long)]
    pub farm: bool,
}

/// `latlas networks export`.
#[derive(Debug, Args)]
pub struct NetworkExport {
    /// The network and its ops.
    #[command(flatten)]
    pub from: NetworkSource,
    /// The weights, and the file.
    #[command(flatten)]
    pub to: ExportTo,
}

/// `latlas networks cost`.
#[derive(Debug, Args)]
pub struct NetworkCost {
    /// The networks and their ops.
    #[command(flatten)]
    pub from: NetworkSource,
    /// Element type, for bytes: `f32`, `f16`, `bf16` or `int8`
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Print one JSON object a network, with all its ops
    #[arg(long)]
    pub json: bool,
}

/// `latlas networks keys`.
#[derive(Debug, Args)]
pub struct NetworkKeys {
    /// The networks and their ops.
    #[command(flatten)]
    pub from: NetworkSource,
    /// Print the space as a JSON object
    #[arg(long)]
    pub json: bool,
}
