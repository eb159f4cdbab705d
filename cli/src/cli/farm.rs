//! `latlas farm`.

use clap::{Args, Subcommand};

use super::values::label;

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
    /// List the agents: state, last contact, and current work
    #[command(after_help = "Example:\n  latlas farm agents")]
    Agents {
        /// Only agents with this label; repeatable. `KEY-` selects agents without it
        #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, Option<String>)>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Rename an agent; each name is unique
    #[command(after_help = "Needs an admin token.\n\nExample:\n  latlas farm name 0198c5f2 box-7")]
    Name {
        /// The agent: its name, its id, or the beginning of its id
        agent: String,
        /// The new name
        name: String,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Set or remove labels of an agent
    #[command(after_help = "\
The farm itself does not use labels; lists show them. Needs an admin token.

Example:
  latlas farm label box-7 rack=3 outlet=12
  latlas farm label box-7 outlet-")]
    Label {
        /// The agent: its name, its id, or the beginning of its id
        agent: String,
        /// `KEY=VALUE` sets a label, `KEY-` removes it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label)]
        labels: Vec<(String, Option<String>)>,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an agent from the farm permanently
    #[command(after_help = "\
Its credential is revoked, other agents get its tasks, and lists no longer contain it. Its measurements stay. To
return, the box enrols again. Needs an admin token.

Example:
  latlas farm remove box-7")]
    Remove {
        /// The agent: its name, its id, or the beginning of its id
        agent: String,
    },
    /// Stop trusting an agent: others get its tasks, and tables ignore what it measures from now on
    #[command(after_help = "\
Its earlier measurements stay in the tables. The quarantine lasts until `latlas farm release`. Needs an admin token.

Example:
  latlas farm quarantine box-7 --reason \"its fan is broken\"")]
    Quarantine(AgentDecision),
    /// Let an agent finish its tasks and stop
    #[command(after_help = "\
It gets no tasks after a restart either, until `latlas farm release`. Needs an admin token.

Example:
  latlas farm drain box-7 --reason \"it moves to another rack\"")]
    Drain(AgentDecision),
    /// End a quarantine or a drain
    #[command(after_help = "Needs an admin token.\n\nExample:\n  latlas farm release box-7")]
    Release {
        /// The agent: its name, its id, or the beginning of its id
        agent: String,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// List and revoke tokens of people and credentials of agents; needs an admin token
    #[command(subcommand, after_help = "Example:\n  latlas farm tokens list")]
    Tokens(Tokens),
    /// Show the changes that people made, latest first; needs an admin token
    #[command(after_help = "Example:\n  latlas farm audit --last 20")]
    Audit {
        /// Number of entries
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
    /// List the tokens and credentials, without their secrets
    #[command(after_help = "Example:\n  latlas farm tokens list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token, or the credential of an agent, permanently
    #[command(after_help = "\
It is refused from the next call on. A lease of the agent expires within a minute.

Example:
  latlas farm tokens revoke 7")]
    Revoke {
        /// Number of the token, as printed by `latlas farm tokens list`
        id: i64,
        /// Print the revoked token as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A decision about an agent, and its reason.
#[derive(Debug, Args)]
pub struct AgentDecision {
    /// The agent: its name, its id, or the beginning of its id
    pub agent: String,
    /// The reason, which lists show
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Print the agent as JSON
    #[arg(long)]
    pub json: bool,
}
