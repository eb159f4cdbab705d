//! The command line: names, help and examples. What the commands do stands in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use latlas_shared::{HardwareId, Missing};
use ops_catalog::Family;

/// Latency tables of real devices, and predictions for whole networks.
#[derive(Debug, Parser)]
#[command(
    name = "latlas",
    version,
    arg_required_else_help = true,
    after_help = "\
Results go to stdout, everything else to stderr. Exit code 0: success; 2: wrong usage; 1: anything else.
A coordinator asks for a token: put it into the environment variable LATLAS_TOKEN.

Example:
  latlas table list
  latlas table get amd-epyc-f25m1-2c-24gb.cpu -o table.json
  latlas accuracy --table table.json
  latlas predict --table table.json --network mobilenet_v2"
)]
pub struct Cli {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LATLAS_COORDINATOR",
        hide_env_values = true,
        display_order = 900,
        default_value = "http://127.0.0.1:8700"
    )]
    pub coordinator: String,
    /// Certificates to trust beside the system's, as a PEM file: for a coordinator whose certificate is of
    /// your own making
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LATLAS_CA_FILE",
        hide_env_values = true,
        display_order = 901
    )]
    pub ca_file: Option<PathBuf>,
    /// Your own certificate and its private key in one PEM file, for a coordinator that asks for one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LATLAS_CLIENT_CERT",
        hide_env_values = true,
        display_order = 902
    )]
    pub client_cert: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The ops that can be measured and networks are made of
    #[command(subcommand)]
    Ops(Ops),
    /// Whole networks: built-in ones, random ones, and the op keys that they are made of
    #[command(subcommand)]
    Networks(Networks),
    /// The classes of devices that can measure
    #[command(subcommand)]
    Hardware(Hardware),
    /// Latency tables
    #[command(subcommand)]
    Table(Table),
    /// Ask a device to measure a space and whole networks
    Profile(Profile),
    /// What was asked of devices, and how far it is
    #[command(subcommand)]
    Request(Request),
    /// Predict the latency of whole networks from a table
    Predict(Predict),
    /// Show how well a table predicts the whole networks that were measured
    Accuracy(Accuracy),
    /// Judge candidate networks by latency, FLOPs, params and structure
    Prune(Prune),
    /// Host a farm: its state, its boxes, who may use it, and what was changed
    #[command(subcommand)]
    Farm(Farm),
}

/// `latlas farm`.
#[derive(Debug, Subcommand)]
pub enum Farm {
    /// Show the farm on one screen: agents, tasks, failures and tables of each class of device
    #[command(after_help = "Example:\n  latlas farm status")]
    Status {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// List the boxes: state, when each was last heard of, and what it works on
    #[command(after_help = "Example:\n  latlas farm agents")]
    Agents {
        /// Only those with this label; may be given several times. `KEY-` is those without it
        #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, Option<String>)>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Give a box another name, which no other box has
    #[command(
        after_help = "Needs an admin's token.\n\nExample:\n  latlas farm name 0198c5f2 box-7"
    )]
    Name {
        /// The agent: its id, the beginning of it, or its name
        agent: String,
        /// The new name
        name: String,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write labels on a box, or take them away
    #[command(after_help = "\
Labels mean nothing to the farm; lists show them. Needs an admin's token.

Example:
  latlas farm label box-7 rack=3 outlet=12
  latlas farm label box-7 outlet-")]
    Label {
        /// The agent: its id, the beginning of it, or its name
        agent: String,
        /// `KEY=VALUE` sets a label, `KEY-` takes it away
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label)]
        labels: Vec<(String, Option<String>)>,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a box out of the farm for good
    #[command(after_help = "\
Its credential ends, its work goes to others, and it is in no list any more. What it measured stays. To come back it
enrols anew. Needs an admin's token.

Example:
  latlas farm remove box-7")]
    Remove {
        /// The agent: its id, the beginning of it, or its name
        agent: String,
    },
    /// Trust a box no more: its work goes to others, and what it measures counts for no table
    #[command(after_help = "\
What it measured before stays in the tables. It waits until `latlas farm release`. Needs an admin's token.

Example:
  latlas farm quarantine box-7 --reason \"its fan is broken\"")]
    Quarantine(AgentDecision),
    /// Let a box finish what it has and leave
    #[command(after_help = "\
It gets no work when it is started again either, until `latlas farm release`. Needs an admin's token.

Example:
  latlas farm drain box-7 --reason \"it moves to another rack\"")]
    Drain(AgentDecision),
    /// Take a quarantine or a drain back
    #[command(after_help = "Needs an admin's token.\n\nExample:\n  latlas farm release box-7")]
    Release {
        /// The agent: its id, the beginning of it, or its name
        agent: String,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// The tokens of people and the credentials of agents; needs an admin token
    #[command(subcommand)]
    Tokens(Tokens),
    /// Show what people changed, the latest first; needs an admin token
    #[command(after_help = "Example:\n  latlas farm audit --last 20")]
    Audit {
        /// How many entries
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        last: u32,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// `latlas farm tokens`.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// List them, without their secrets
    #[command(after_help = "Example:\n  latlas farm tokens list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// End a token for good, or the credential of an agent
    #[command(after_help = "\
It is refused from the next call on. A lease that the agent holds runs out by itself, within a minute.

Example:
  latlas farm tokens revoke 7")]
    Revoke {
        /// Its number, as `latlas farm tokens list` prints it
        id: i64,
        /// Print what it is now as JSON
        #[arg(long)]
        json: bool,
    },
}

/// `latlas ops`.
#[derive(Debug, Subcommand)]
pub enum Ops {
    /// List the ops
    #[command(after_help = "Example:\n  latlas ops list")]
    List {
        /// Ask the coordinator: its list has the ops that were submitted to it
        #[arg(long)]
        farm: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show an op's definition, and what it costs at a shape
    #[command(after_help = "Example:\n  latlas ops show MBConv6_3x3 --key n1-h56-w56-i24-o24-s1")]
    Show {
        /// Name or alias of the op
        op: String,
        /// A shape like `n1-h56-w56-i24-o24-s1`, alone or as a whole op key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Ask the coordinator: it also has the ops that were submitted to it
        #[arg(long)]
        farm: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
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
        /// Print it on one line
        #[arg(long)]
        json: bool,
    },
    /// Draw random networks, one JSON object a line
    #[command(after_help = "\
A network is named FAMILY-SEED-INDEX and depends on these three alone. The space of the same name as the
family has every op key of every network.

Example:
  latlas networks draw --family mobilenet --count 40 --seed 7 > set.ndjson
  latlas networks draw --family mobilenet --count 1 | latlas predict --table table.json --arch -")]
    Draw {
        /// The kind of network: `mobilenet` or `transformer`
        #[arg(long)]
        family: Family,
        /// How many
        #[arg(long, value_name = "N")]
        count: usize,
        /// Which ones; a new seed, said on stderr, when not given
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
    },
    /// Print the op keys that some networks need together, as a space
    #[command(after_help = "\
What is printed is a space file in YAML, for `latlas profile --space FILE` and `latlas-agent bench --space
FILE`. Measured, it predicts all of the networks.

Example:
  latlas networks keys --network resnet18 --network vit_b_32 > space.yaml
  latlas networks keys --arch set.ndjson > space.yaml")]
    Keys(NetworkKeys),
}

/// `latlas networks keys`.
#[derive(Debug, Args)]
pub struct NetworkKeys {
    /// The networks.
    #[command(flatten)]
    pub of: NetworkChoice,
    /// Ops of the user's own.
    #[command(flatten)]
    pub ops: OpFiles,
    /// Ask the coordinator: networks may then have the ops that were submitted to it
    #[arg(long)]
    pub farm: bool,
    /// Print the space as a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Networks from files and built-in ones.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct NetworkChoice {
    /// A file of networks; `-` is stdin; may be given several times
    #[arg(long, value_name = "FILE")]
    pub arch: Vec<PathBuf>,
    /// A network: the name of a built-in one, or a file (recognized by `/` or an extension); may be given
    /// several times
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Vec<String>,
}

/// Ops that networks have and the catalog does not.
#[derive(Debug, Args)]
pub struct OpFiles {
    /// A file that defines ops of your own, for the networks that have them; may be given several times
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
}

/// `latlas hardware`.
#[derive(Debug, Subcommand)]
pub enum Hardware {
    /// List them, with their run configs
    #[command(after_help = "Example:\n  latlas hardware list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// A decision about a box, and why.
#[derive(Debug, Args)]
pub struct AgentDecision {
    /// The agent: its id, the beginning of it, or its name
    pub agent: String,
    /// Why, for whoever looks at the farm later
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Print the agent as JSON
    #[arg(long)]
    pub json: bool,
}

/// `latlas table`.
#[derive(Debug, Subcommand)]
pub enum Table {
    /// List the tables, each with its latest version
    #[command(after_help = "Example:\n  latlas table list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Download a table
    #[command(after_help = "\
Example:
  latlas table get amd-epyc-f25m1-2c-24gb.cpu -o table.json
  latlas table get amd-epyc-f25m1-2c-24gb.cpu --format csv | head")]
    Get(TableGet),
    /// Make a table from measurements, without a coordinator
    #[command(after_help = "\
The measurements are those that `latlas-agent bench` writes, of one class of device under one run config.
Whole networks among them become the table's accuracy. The same measurements make the same version here
and in a coordinator.

Example:
  latlas table build rows.ndjson -o table.json
  latlas-agent bench --space quick --network demo_conv | latlas table build - -o table.json")]
    Build(TableBuild),
    /// List the rows of a downloaded table
    #[command(after_help = "\
LATENCY is what the op costs inside a network: the 10th percentile of its samples (latency_micros; median_micros is
their median). us, ms and s are microseconds, milliseconds and seconds. INPUT is batch x height x width; 95% CI is
half the width of the latency's interval. FLOPs, where a command prints them, are multiply-accumulates (MACs).
All columns: docs/table.md

Example:\n  latlas table show table.json --op MBConv6_3x3")]
    Show(TableShow),
}

/// `latlas table build`.
#[derive(Debug, Args)]
pub struct TableBuild {
    /// Measurements, one JSON object a line; `-` is stdin
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// A file that defines the ops that are not built in, as it was given to `latlas-agent bench --space`;
    /// may be given several times
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
    /// What `latlas-agent probe --json` says of the box, to be kept with the table; may be given several
    /// times
    #[arg(long, value_name = "FILE")]
    pub probe: Vec<PathBuf>,
    /// Write to this file, which is whole or unchanged whatever happens
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `latlas table show`.
#[derive(Debug, Args)]
pub struct TableShow {
    /// A table, as `latlas table get` writes it; `-` is stdin
    pub file: PathBuf,
    /// Only the rows of this op
    #[arg(long)]
    pub op: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `latlas table get`.
#[derive(Debug, Args)]
pub struct TableGet {
    /// The class of device
    pub hardware: HardwareId,
    /// Id of the run config; the hardware's default when not given
    #[arg(long)]
    pub config: Option<String>,
    /// A version, which has its own run config; the latest when not given
    #[arg(long, value_parser = version, conflicts_with = "config")]
    pub version: Option<String>,
    /// How the table is written; `latlas predict` and `latlas prune` read json
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Write to this file, which is whole or unchanged whatever happens
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Formats of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The whole table
    Json,
    /// One row a line
    Ndjson,
    /// The columns of a row, for spreadsheets and data frames
    Csv,
}

/// `latlas profile`.
#[derive(Debug, Args)]
#[command(after_help = "\
A FILE is YAML: `name`, then `grids`, `keys` or `networks` to measure, and under `ops` the definitions
of ops that the catalog does not have. Whole networks are measured beside it: they are no rows of the
table, its predictions are held against them (`latlas accuracy`). With --wait the exit code is 1 if
something could not be measured.

Example:
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --space mobilenet --wait
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --network mobilenet_v2 --arch mine.ndjson
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --op-file my_block.yaml --wait")]
pub struct Profile {
    /// The class of device; `latlas hardware list` lists them
    #[arg(long)]
    pub hardware: HardwareId,
    /// What to measure.
    #[command(flatten)]
    pub what: ProfileWhat,
    /// Id of the run config; the hardware's default when not given
    #[arg(long)]
    pub config: Option<String>,
    /// Measure again what has been measured
    #[arg(long)]
    pub remeasure: bool,
    /// Wait until all of it is measured
    #[arg(long)]
    pub wait: bool,
    /// Print the request's state as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `latlas profile` measures.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ProfileWhat {
    /// A space: the name of a built-in one, or a file (recognized by `/` or an extension)
    #[arg(long, value_name = "NAME|FILE")]
    pub space: Option<String>,
    /// A file that defines new ops and says at which shapes to measure them; beside --space, --network or
    /// --arch it may define ops alone
    #[arg(long, value_name = "FILE")]
    pub op_file: Option<PathBuf>,
    /// A whole network: the name of a built-in one, or a file (recognized by `/` or an extension); may be
    /// given several times
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Vec<String>,
    /// A file of whole networks, one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub arch: Option<PathBuf>,
}

/// `latlas request`.
#[derive(Debug, Subcommand)]
pub enum Request {
    /// List the requests
    #[command(after_help = "Example:\n  latlas request list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show how far a request is
    #[command(
        after_help = "Example:\n  latlas request show 0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa --wait"
    )]
    Show {
        /// Its id, as `latlas profile` printed it, or the beginning of it
        #[arg(value_parser = id)]
        id: String,
        /// Wait until all of it is measured
        #[arg(long)]
        wait: bool,
        /// Print its state as JSON
        #[arg(long)]
        json: bool,
    },
    /// End a request before all of it is measured
    #[command(after_help = "\
What no other request waits for leaves the queue, and boxes drop it within ten seconds. What is measured stays. Needs
the token that made the request, or an admin's.

Example:
  latlas request cancel 0198c5f2")]
    Cancel {
        /// Its id, as `latlas profile` printed it, or the beginning of it
        #[arg(value_parser = id)]
        id: String,
        /// Print its state as JSON
        #[arg(long)]
        json: bool,
    },
}

/// `latlas predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
A network is a sequence, a graph or the short form; the file holds one, as JSON or YAML, or many, one
JSON object a line. One network is explained; several give a table, a line each. With --json each network gives one line, in the order of the input: a prediction, or
what is `missing` or `invalid`. The exit code is 1 unless every network has a prediction.

Example:
  latlas predict --table table.json --network mobilenet_v2 --network mine.json
  latlas predict --table table.json --arch candidates.ndjson --json | jq .latency_micros")]
pub struct Predict {
    /// A table, as `latlas table get` writes it
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// The networks.
    #[command(flatten)]
    pub what: NetworkChoice,
    /// Ops of the user's own.
    #[command(flatten)]
    pub ops: OpFiles,
    /// What happens to an op whose row is missing: `error`, or `interpolate` between measured rows
    #[arg(long, value_name = "RULE", default_value = "error")]
    pub missing: Missing,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `latlas accuracy`.
#[derive(Debug, Args)]
#[command(after_help = "\
For each family of networks: how many were measured and predicted, the mean absolute error (MAPE) and the
mean signed error (BIAS, positive where predictions are too high), the share within ±5% and ±10%, Kendall's
tau between predicted and measured, and the share of measured latencies inside the predicted intervals.

Example:
  latlas accuracy amd-epyc-f25m1-2c-24gb.cpu
  latlas accuracy --table table.json --plot accuracy.svg")]
pub struct Accuracy {
    /// Whose accuracy.
    #[command(flatten)]
    pub of: AccuracyOf,
    /// Id of the run config; the hardware's default when not given
    #[arg(long, conflicts_with = "table")]
    pub config: Option<String>,
    /// Draw predictions against measurements into an SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// The table that `latlas accuracy` is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct AccuracyOf {
    /// The class of device, whose latest table the coordinator is asked for
    pub hardware: Option<HardwareId>,
    /// A table, as `latlas table get` and `latlas table build` write it; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
}

/// `latlas prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Candidates are networks, one JSON object a line. Each line gives one verdict, a JSON object, in the same
order: accepted, rejected, unknown (a row is missing from the table) or invalid, with its reasons. The
exit code is 0 if every line was judged, whatever the verdicts.

The constraints are YAML; all are optional, but one is given:
  max_latency_ms: 25
  latency_bound: estimate      # or upper: the upper end of the interval is held against the budget
  max_flops: 600e6
  max_params: 5e6
  max_layers: 50
  max_per_op: {Conv5x5: 5}

Example:
  latlas prune --table table.json --config limits.yaml < candidates.ndjson > verdicts.ndjson")]
pub struct Prune {
    /// A table, as `latlas table get` writes it
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// The constraints
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The candidates; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub arch: PathBuf,
    /// Ops of the user's own.
    #[command(flatten)]
    pub ops: OpFiles,
    /// What happens to an op whose row is missing: `error` makes the candidate unknown, `interpolate`
    /// estimates it between measured rows
    #[arg(long, value_name = "RULE", default_value = "error")]
    pub missing: Missing,
}

/// A UUID, or the beginning of one.
fn id(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_one {
        Ok(text.to_owned())
    } else {
        Err("an id has the digits 0 to 9 and a to f".to_owned())
    }
}

/// A label to set, or with none to take away.
fn label(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !value.is_empty() => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        _ => return Err("write KEY=VALUE, or KEY- to take a label away".to_owned()),
    };
    if key.is_empty() {
        return Err("the key is missing: write KEY=VALUE, or KEY-".to_owned());
    }
    Ok((key.to_owned(), value))
}

/// A version is a part of a URL's path.
fn version(text: &str) -> Result<String, String> {
    let plain = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain {
        Ok(text.to_owned())
    } else {
        Err("a version is 4 to 64 letters and digits".to_owned())
    }
}
