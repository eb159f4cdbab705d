//! `latlas arch`.

use clap::{Args, Subcommand};

use super::NetworkSource;

/// `latlas arch`.
#[derive(Debug, Subcommand)]
pub enum Arch {
    /// Print the canonical hashes of networks, one JSON object a line
    #[command(after_help = "\
A file contains one network, as JSON or YAML, or many, one JSON object a line. Each network gives one line, in the order
of the input, with three hashes:
  topology     ops and wires
  shaped       ops and wires with all sizes
  computation  what is computed: identities, zeros and what does not reach the output are left out
Networks with one hash are the same. `exact` is false for a network whose symmetries took too long: another spelling of
it may have another hash. A network with a mistake is `invalid`, and the exit code is then 1.

Example:
  latlas arch hash --network resnet18
  latlas arch hash --arch candidates.ndjson | jq -r .computation | sort | uniq -d")]
    Hash(ArchHash),
}

/// `latlas arch hash`.
#[derive(Debug, Args)]
pub struct ArchHash {
    /// The networks and their ops.
    #[command(flatten)]
    pub from: NetworkSource,
}
