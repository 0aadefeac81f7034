//! Keeping what outcomes replace, in partitions that ask for it.

use gatefeed_core::outcome::{Completion, Kept};
use sqlx::SqliteConnection;

use super::{
    error::Result,
    values::{chunks, values},
};

/// What an item comes to a gate with now counts, not what it once came there with.
pub(super) const FORGET: &str =
    "DELETE FROM gatefeed_history WHERE partition_id = ? AND item_id = ? AND gate = ?";

/// In the transaction of these outcomes, which were written.
pub(super) async fn keep(connection: &mut SqliteConnection, written: &[&Completion]) -> Result<()> {
    let kept: Vec<(&Completion, &Kept)> =
        written.iter().filter_map(|c| c.kept.as_ref().map(|kept| (*c, kept))).collect();
    for chunk in chunks(&kept) {
        let sql = keep_sql(chunk.len());
        let mut query = sqlx::query(&sql);
        for (completion, kept) in chunk {
            query = query.bind(&*completion.lease.partition).bind(&*completion.item).bind(kept.gate);
            query = query.bind(kept.data.bytes.as_ref()).bind(&kept.data.content_type);
        }
        query.execute(&mut *connection).await?;
    }
    for (completion, _) in kept.iter().filter(|(c, k)| c.change.gate != k.gate) {
        let forget = sqlx::query(FORGET).bind(&*completion.lease.partition).bind(&*completion.item);
        forget.bind(completion.change.gate).execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) fn keep_sql(rows: usize) -> String {
    let rows = values(rows, 5);
    format!(
        "INSERT INTO gatefeed_history (partition_id, item_id, gate, data, content_type) {rows}
        ON CONFLICT (partition_id, item_id, gate) DO NOTHING"
    )
}
