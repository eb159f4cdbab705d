//! `latlas-coordinator token create`

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use latlas_coordinator::token::{Role, Token};

use super::{DataArgument, Failure};

#[derive(Subcommand)]
pub enum Command {
    Create(CreateArguments),
}

/// Make a token and print it; it is not shown again
///
/// A server that is running on the same data directory knows it at once.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    latlas-agent run --coordinator http://127.0.0.1:8700 \\\n    \
    --enroll-token \"$(latlas-coordinator token create --role enroll)\"")]
pub struct CreateArguments {
    /// What its holder may do
    #[arg(long, value_enum)]
    role: PersonRole,
    #[command(flatten)]
    data: DataArgument,
    /// Print an object with the role and the token
    #[arg(long)]
    json: bool,
}

/// Roles that are given to people; agents get theirs by enrolling.
#[derive(Clone, Copy, ValueEnum)]
enum PersonRole {
    /// Bring boxes into the farm
    Enroll,
    /// Read, submit ops and ask for measurements
    Researcher,
    /// Everything that people may do
    Admin,
}

impl From<PersonRole> for Role {
    fn from(role: PersonRole) -> Role {
        match role {
            PersonRole::Enroll => Role::Enroll,
            PersonRole::Researcher => Role::Researcher,
            PersonRole::Admin => Role::Admin,
        }
    }
}

pub async fn create(arguments: CreateArguments) -> Result<(), Failure> {
    let role = Role::from(arguments.role);
    let store = arguments.data.open()?.open_store().await?;
    let token =
        Token::generate(role).map_err(|e| anyhow!("the system has no randomness to give: {e}"))?;
    store.add_token(&token, role, Timestamp::now()).await?;
    store.close().await;
    if arguments.json {
        println!("{}", serde_json::json!({"role": role.name(), "token": token.reveal()}));
    } else {
        println!("{}", token.reveal());
    }
    Ok(())
}
