//! Who may use the API.

use gatefeed_core::{
    StoreError,
    token::{ENDED_MAX, HOLDING_MAX, NewToken, TOKENS_MAX, Token, too_many},
};
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    pool::Lane,
    rows::{at, maybe_at, now, of_moment, word},
};

const ADD: &str =
    "INSERT INTO gatefeed_tokens (id, name, role, feed, hash, expires_at) VALUES (?, ?, ?, ?, ?, ?)";

/// Those that hold come first, should there be more than may be looked at.
const LIST: &str = concat!(
    "SELECT * FROM (SELECT id, name, role, feed, hash, created_at, expires_at, revoked_at FROM gatefeed_tokens
        ORDER BY coalesce(coalesce(revoked_at, expires_at) <= ",
    now!(),
    ", 0), created_at DESC, id LIMIT ?) ORDER BY id"
);

const COUNT: &str = concat!(
    "SELECT count(*) FROM gatefeed_tokens WHERE NOT coalesce(coalesce(revoked_at, expires_at) <= ",
    now!(),
    ", 0)"
);

/// Of those that hold no more the newest are kept.
const FORGET: &str = concat!(
    "DELETE FROM gatefeed_tokens WHERE id IN (SELECT id FROM gatefeed_tokens
        WHERE coalesce(revoked_at, expires_at) <= ",
    now!(),
    " ORDER BY created_at DESC, id LIMIT -1 OFFSET ?)"
);

const REVOKE: &str =
    concat!("UPDATE gatefeed_tokens SET revoked_at = coalesce(revoked_at, ", now!(), ") WHERE id = ?");

impl Sqlite {
    pub(super) async fn insert_token(&self, token: &NewToken) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        let query = sqlx::query(ADD).bind(&token.id).bind(&token.name).bind(token.role.as_str());
        let query = query.bind(&token.feed).bind(token.hash.as_slice());
        query.bind(token.expires_at.map(of_moment).transpose()?).execute(tx.conn()?).await?;
        sqlx::query(FORGET).bind(ENDED_MAX as i64).execute(tx.conn()?).await?;
        let holding: i64 = sqlx::query_scalar(COUNT).fetch_one(tx.conn()?).await?;
        if holding > HOLDING_MAX as i64 {
            return Err(too_many().into());
        }
        tx.commit().await
    }

    pub(super) async fn list_tokens(&self) -> Result<Vec<Token>> {
        let query = sqlx::query(LIST).bind(TOKENS_MAX as i64);
        let rows = query.fetch_all(&mut *self.lanes.read(Lane::Ask).await?).await?;
        rows.iter().map(token).collect()
    }

    pub(super) async fn end_token(&self, id: &str) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        if sqlx::query(REVOKE).bind(id).execute(tx.conn()?).await?.rows_affected() == 0 {
            return Err(StoreError::NotFound(format!("there is no token {id:?}")).into());
        }
        tx.commit().await
    }
}

fn token(row: &SqliteRow) -> Result<Token> {
    Ok(Token {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: word(row, "role")?,
        feed: row.try_get("feed")?,
        hash: row.try_get("hash")?,
        created_at: at(row, "created_at")?,
        expires_at: maybe_at(row, "expires_at")?,
        revoked_at: maybe_at(row, "revoked_at")?,
    })
}
