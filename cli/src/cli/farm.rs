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
