//! `latlas-coordinator token create`, `token list` and `token revoke`

use std::io::{self, Write};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use latlas_coordinator::DATABASE;
use latlas_coordinator::store::{Actor, After, NewToken, Store};
use latlas_coordinator::token::{Role, Terms, Token};
use latlas_shared::api::TokenEntry;

use anyhow::Result;
use latlas_program::exit::Usage;
use latlas_program::text_table::TextTable;

use super::DataArgument;

/// Tokens that are read at once.
const PAGE: u32 = 1000;

/// The longest label.
const LONGEST_LABEL: usize = 64;

#[derive(Subcommand)]
pub enum Command {
    Create(CreateArguments),
    List(ListArguments),
    Revoke(RevokeArguments),
}

/// Make a token and print it; it is not shown again
///
/// A server that is running on the same data directory knows it at once.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    latlas-coordinator token create --role enroll > enroll-token\n  \
    latlas-agent run --coordinator http://127.0.0.1:8700 --enroll-token-file enroll-token\n  \
    latlas-coordinator token create --role enroll --label rack-3 --uses 40 --expires 2d\n  \
    latlas-coordinator token create --role researcher --label ada")]
pub struct CreateArguments {
    /// What its holder may do
    #[arg(long, value_enum)]
    role: PersonRole,
    /// Purpose or owner of the token, shown in lists and in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true,
          value_parser = label)]
    label: String,
    /// Lifetime: 12h, 7d, 2w or 1y, or `never` for no end [default: 30d for the role enroll, never for
    /// others]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires: Option<Lifetime>,
    /// Number of agents that may enrol with it, only for the role enroll [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    #[command(flatten)]
    data: DataArgument,
    /// Print a JSON object with the token and its stored fields
    #[arg(long)]
    json: bool,
}

/// List the tokens of people and the credentials of agents, without their secrets
#[derive(Args)]
#[command(after_help = "Example:\n  latlas-coordinator token list")]
pub struct ListArguments {
    #[command(flatten)]
    data: DataArgument,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// End a token for good, or the credential of an agent
///
/// A server that is running on the same data directory refuses it at once.
#[derive(Args)]
#[command(after_help = "Example:\n  latlas-coordinator token revoke 7")]
pub struct RevokeArguments {
    /// Its number, as `token list` prints it
    id: i64,
    #[command(flatten)]
    data: DataArgument,
    /// Print the revoked token as a JSON object
    #[arg(long)]
    json: bool,
}

/// Roles that are given to people; agents get theirs by enrolling.
#[derive(Clone, Copy, ValueEnum)]
enum PersonRole {
    /// Enrol agents
    Enroll,
    /// Read, submit ops and request measurements
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

#[derive(Clone, Copy)]
enum Lifetime {
    Never,
    For(Span),
}

/// Why an argument is not taken.
#[derive(Debug, thiserror::Error)]
enum BadArgument {
    #[error("a label is one line of at most {LONGEST_LABEL} characters")]
    Label,
    #[error("write a time such as 12h, 7d or 2w, or never")]
    Lifetime(#[from] jiff::Error),
    #[error("a lifetime must be positive: the token would be refused at once")]
    NoTime,
}

fn label(text: &str) -> Result<String, BadArgument> {
    if text.chars().count() > LONGEST_LABEL || text.chars().any(char::is_control) {
        return Err(BadArgument::Label);
    }
    Ok(text.to_owned())
}

fn lifetime(text: &str) -> Result<Lifetime, BadArgument> {
    if text == "never" {
        return Ok(Lifetime::Never);
    }
    let span: Span = text.parse()?;
    if !span.is_positive() {
        return Err(BadArgument::NoTime);
    }
    Ok(Lifetime::For(span))
}

/// The end of a time that begins now. Days are 24 hours long, and months those of the calendar.
fn end(span: Span, now: Timestamp) -> Result<Timestamp> {
    let end = now.to_zoned_datetime(TimeZone::UTC).checked_add(span);
    end.map(|end| end.timestamp()).map_err(|_| {
        Usage("--expires: the time is out of range; write never instead".to_owned()).into()
    })
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(arguments).await,
        Command::List(arguments) => list(arguments).await,
        Command::Revoke(arguments) => revoke(arguments).await,
    }
}

async fn create(arguments: CreateArguments) -> Result<()> {
    let CreateArguments { role, label, expires, uses, data, json } = arguments;
    let (role, now) = (Role::from(role), Timestamp::now());
    let mut terms = Terms::usual(role, now);
    match expires {
        None => {}
        Some(Lifetime::Never) => terms.expires_at = None,
        Some(Lifetime::For(span)) => terms.expires_at = Some(end(span, now)?),
    }
    if uses.is_some() && role != Role::Enroll {
        let text = "--uses counts enrolments, so it is for --role enroll only";
        return Err(Usage(text.to_owned()).into());
    }
    terms.uses_left = uses.or(terms.uses_left);
    let store = open_to_create(&data).await?;
    let token = Token::generate(role).context("the system has no randomness to give")?;
    let new = NewToken { role, label, terms };
    let id = store.add_token(&token, &new, &Actor::CommandLine, now).await?;
    store.close().await;
    if json {
        let object = serde_json::json!({
            "id": id, "role": role.name(), "label": new.label, "expires_at": terms.expires_at,
            "uses_left": terms.uses_left, "token": token.reveal(),
        });
        writeln!(io::stdout(), "{object}")?;
    } else {
        writeln!(io::stdout(), "{}", token.reveal())?;
    }
    Ok(())
}

/// A token may be made before the first `serve`, where the directory is named: by default that would too easily be
/// another one than that of the coordinator.
async fn open_to_create(data: &DataArgument) -> Result<Store> {
    let path = data.path()?;
    let is_new = !path.join(DATABASE).is_file();
    if data.path.is_none() {
        data.existing()?;
    }
    let store = data.open()?.open_store().await?;
    if is_new {
        eprintln!(
            "there was no database in {}, so a new one was made: only a coordinator that serves this directory \
             knows the token",
            path.display()
        );
    }
    Ok(store)
}

async fn list(arguments: ListArguments) -> Result<()> {
    let store = arguments.data.existing()?.open_store().await?;
    let tokens = all(&store).await?;
    store.close().await;
    let mut text = String::new();
    if arguments.json {
        for token in &tokens {
            text += &serde_json::to_string(token)?;
            text.push('\n');
        }
    } else {
        text = text_table(&tokens, Timestamp::now());
    }
    match io::stdout().write_all(text.as_bytes()) {
        // The reader of the list, such as `head`, has stopped reading.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn text_table(tokens: &[TokenEntry], now: Timestamp) -> String {
    let heading = ["ID", "ROLE", "LABEL", "STATE", "CREATED", "LAST USED", "EXPIRES", "USES LEFT"];
    let mut table = TextTable::new(heading);
    tokens.iter().for_each(|token| table.push(cells(token, now)));
    table.text(None)
}

async fn all(store: &Store) -> Result<Vec<TokenEntry>> {
    let mut tokens: Vec<TokenEntry> = Vec::new();
    loop {
        let cursor = tokens.last().map(|token| token.id);
        let page = store.list_tokens(&After { cursor, limit: PAGE }).await?;
        tokens.extend(page.items);
        if page.next_cursor.is_none() {
            return Ok(tokens);
        }
    }
}

fn cells(token: &TokenEntry, now: Timestamp) -> [String; 8] {
    let time = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let optional = |at: Option<Timestamp>, none: &str| at.map_or(none.to_owned(), time);
    [
        token.id.to_string(),
        token.role.clone(),
        token.label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        token.state(now).to_owned(),
        time(token.created_at),
        optional(token.last_used_at, "-"),
        optional(token.expires_at, "never"),
        token.uses_left.map_or("-".to_owned(), |uses| uses.to_string()),
    ]
}

async fn revoke(arguments: RevokeArguments) -> Result<()> {
    let RevokeArguments { id, data, json } = arguments;
    let store = data.existing()?.open_store().await?;
    let revoked = store.revoke_token(id, &Actor::CommandLine, Timestamp::now()).await?;
    store.close().await;
    let Some(token) = revoked else {
        return Err(anyhow!("there is no token {id}; `latlas-coordinator token list` lists them"));
    };
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&token)?)?;
    } else {
        writeln!(io::stdout(), "token {id} ({}) is revoked", token.role)?;
    }
    Ok(())
}
