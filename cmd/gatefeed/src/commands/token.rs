//! `gatefeed token`.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use gatefeed_core::{
    StoreError,
    token::{Role, Token},
};
use serde_json::json;

use crate::{
    args::JsonArg,
    database::DatabaseArgs,
    output::{self, JsonArray, Kind, Table, relative, relative_or_dash},
    parse,
};

/// Make, list and revoke tokens of the API.
///
/// As long as there has never been one, `gatefeed serve` is open on this machine; from the first one on every request takes
/// a token, as Authorization: Bearer. Only a hash of it is kept. A running server notices within two seconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed token create --role push --feed video --name importer
  gatefeed token list
  gatefeed token revoke 0123456789ab")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token, and print it, this once
    #[command(after_help = "Example:
  gatefeed token create --role push --feed video --name importer --expires 90d")]
    Create(CreateArgs),
    /// List the tokens, without their secrets
    #[command(after_help = "Example:
  gatefeed token list --json")]
    List(ListArgs),
    /// Revoke a token: within two seconds it is refused everywhere
    #[command(after_help = "Example:
  gatefeed token revoke 0123456789ab")]
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// What it allows: read (look), push (look and push) or operate (everything)
    #[arg(long, env = "GATEFEED_TOKEN_ROLE", value_name = "ROLE", value_parser = parse_role)]
    role: Role,
    /// Only in this feed [default: in every feed]
    #[arg(long, env = "GATEFEED_TOKEN_FEED", value_name = "NAME", value_parser = parse::name)]
    feed: Option<String>,
    /// What the list calls it
    #[arg(long, env = "GATEFEED_TOKEN_NAME", value_name = "NAME", value_parser = parse::name)]
    name: Option<String>,
    /// For how long it holds [default: for ever]
    #[arg(long, env = "GATEFEED_TOKEN_EXPIRES", value_name = "DURATION", value_parser = parse::timeout)]
    expires: Option<Duration>,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Args, Debug)]
struct RevokeArgs {
    /// The token's id, as the list has it
    #[arg(value_name = "ID", value_parser = parse::name)]
    id: String,
    #[command(flatten)]
    json: JsonArg,
}

fn parse_role(word: &str) -> Result<Role, String> {
    word.parse().map_err(|_| "expected read, push or operate".to_owned())
}

pub(crate) async fn token(database: &DatabaseArgs, args: TokenArgs) -> Result<()> {
    match args.action {
        Action::Create(args) => create(database, args).await,
        Action::List(args) => list(database, args).await,
        Action::Revoke(args) => revoke(database, args).await,
    }
}

async fn create(database: &DatabaseArgs, args: CreateArgs) -> Result<()> {
    let expires_at = args.expires.map(until).transpose()?;
    let (text, token) = gatefeed_api::new_token(args.role, args.feed, args.name, expires_at);
    database.open_migrated().await?.add_token(&token).await?;
    if args.json.json {
        return output::json_object(&json!({"id": token.id, "token": text}));
    }
    output::note("This is the only time that it is shown:");
    output::line(&text)
}

fn until(time: Duration) -> Result<DateTime<Utc>> {
    let end = TimeDelta::from_std(time).ok().and_then(|time| Utc::now().checked_add_signed(time));
    Ok(end.ok_or_else(|| StoreError::Config("--expires is too long".into()))?)
}

async fn list(database: &DatabaseArgs, args: ListArgs) -> Result<()> {
    let tokens = database.open_migrated().await?.tokens().await?;
    if args.json.json {
        let mut array = JsonArray::of_lines();
        array.add(tokens.iter())?;
        return array.end();
    }
    if tokens.is_empty() {
        return output::line("No tokens yet: make one with `gatefeed token create --role ROLE`.");
    }
    table(&tokens, Utc::now()).print()
}

fn table(tokens: &[Token], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        ("id", Kind::Id),
        ("role", Kind::Left),
        ("feed", Kind::Id),
        ("name", Kind::Id),
        ("state", Kind::Left),
        ("made", Kind::Left),
        ("expires", Kind::Left),
    ]);
    for token in tokens {
        let state = match (token.revoked_at, token.holds(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "holds",
            (None, false) => "expired",
        };
        table.row(vec![
            token.id.clone(),
            token.role.to_string(),
            token.feed.clone().unwrap_or_else(|| "-".to_owned()),
            token.name.clone().unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
            relative(token.created_at, now),
            relative_or_dash(token.expires_at, now),
        ]);
    }
    table
}

async fn revoke(database: &DatabaseArgs, args: RevokeArgs) -> Result<()> {
    database.open_migrated().await?.revoke_token(&args.id).await?;
    if args.json.json {
        return output::json_object(&json!({"id": args.id, "revoked": true}));
    }
    output::line(&format!("{} is revoked: running servers refuse it within two seconds.", args.id))
}
