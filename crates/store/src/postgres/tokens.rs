//! Who may use the API.

use std::{str::FromStr, time::Duration};

use gatefeed_core::{
    Result, StoreError,
    token::{ENDED_MAX, HOLDING_MAX, NewToken, Role, TOKENS_MAX, Token, too_many},
};
use sqlx::postgres::PgRow;

use super::{
    Postgres,
    error::translate,
    pool::Lane,
    rows::{at, get},
};

const LIMIT: Duration = Duration::from_secs(5);

const ADD: &str = "INSERT INTO {schema}.gatefeed_tokens (id, name, role, feed, hash, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6)";

/// Those that hold come first, should there be more than may be looked at.
const LIST: &str = "SELECT l.* FROM (SELECT id, name, role, feed, hash, created_at, expires_at, revoked_at
        FROM {schema}.gatefeed_tokens
        ORDER BY coalesce(revoked_at, expires_at) <= now() IS TRUE, created_at DESC, id LIMIT $1) l ORDER BY l.id";

const COUNT: &str = "SELECT count(*) FROM {schema}.gatefeed_tokens
    WHERE (coalesce(revoked_at, expires_at) <= now()) IS NOT TRUE";

/// Of those that hold no more the newest are kept.
const FORGET: &str =
    "DELETE FROM {schema}.gatefeed_tokens WHERE id IN (SELECT t.id FROM {schema}.gatefeed_tokens t
    WHERE coalesce(t.revoked_at, t.expires_at) <= now() ORDER BY t.created_at DESC, t.id OFFSET $1)";

const REVOKE: &str =
    "UPDATE {schema}.gatefeed_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1";

impl Postgres {
    pub(super) async fn insert_token(&self, token: &NewToken) -> Result<()> {
        let mut tx = self.begin(Lane::Act, LIMIT).await?;
        let query = tx.query(self.sql.get(ADD)).bind(&token.id).bind(&token.name).bind(token.role.as_str());
        let query = query.bind(&token.feed).bind(token.hash.as_slice()).bind(token.expires_at);
        query.execute(tx.conn()?).await.map_err(translate)?;
        let query = tx.query(self.sql.get(FORGET)).bind(ENDED_MAX as i64);
        query.execute(tx.conn()?).await.map_err(translate)?;
        let counted = tx.query(self.sql.get(COUNT)).fetch_one(tx.conn()?).await.map_err(translate)?;
        if at::<i64>(&counted, 0)? > HOLDING_MAX as i64 {
            tx.rollback().await?;
            return Err(too_many());
        }
        tx.commit().await
    }

    pub(super) async fn list_tokens(&self) -> Result<Vec<Token>> {
        let mut tx = self.begin(Lane::Ask, LIMIT).await?;
        let query = tx.query(self.sql.get(LIST)).bind(TOKENS_MAX as i64);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        rows.iter().map(token).collect()
    }

    pub(super) async fn end_token(&self, id: &str) -> Result<()> {
        let mut tx = self.begin(Lane::Act, LIMIT).await?;
        let revoked = tx.query(self.sql.get(REVOKE)).bind(id).execute(tx.conn()?).await.map_err(translate)?;
        if revoked.rows_affected() == 0 {
            return Err(StoreError::NotFound(format!("there is no token {id:?}")));
        }
        tx.commit().await
    }
}

fn token(row: &PgRow) -> Result<Token> {
    Ok(Token {
        id: get(row, "id")?,
        name: get(row, "name")?,
        role: Role::from_str(get(row, "role")?)?,
        feed: get(row, "feed")?,
        hash: get(row, "hash")?,
        created_at: get(row, "created_at")?,
        expires_at: get(row, "expires_at")?,
        revoked_at: get(row, "revoked_at")?,
    })
}
