//! Keeping what outcomes replace, in partitions that ask for it.

use gatefeed_core::{Result, outcome::Completion};

use super::{Postgres, error::translate, pool::Tx};

const KEEP: &str = "INSERT INTO {schema}.gatefeed_history (partition_id, item_id, gate, data, content_type)
    SELECT k.partition_id, k.item_id, k.gate, k.data, k.content_type
    FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[], $5::text[])
        AS k (partition_id, item_id, gate, data, content_type) ON CONFLICT DO NOTHING";

/// What an item comes to a gate with now counts, not what it once came there with.
const FORGET: &str = "DELETE FROM {schema}.gatefeed_history h
    USING unnest($1::text[], $2::text[], $3::int[]) AS m (partition_id, item_id, gate)
    WHERE h.partition_id = m.partition_id AND h.item_id = m.item_id AND h.gate = m.gate";

impl Postgres {
    /// In the transaction of these outcomes, which were written; costs nothing where none has something to keep.
    pub(super) async fn keep_history<'a>(
        &self,
        tx: &mut Tx,
        written: impl Iterator<Item = &'a Completion>,
    ) -> Result<()> {
        let kept: Vec<_> = written.filter_map(|c| c.kept.as_ref().map(|kept| (c, kept))).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let query = tx.query(self.sql.get(KEEP));
        let query = query.bind(kept.iter().map(|(c, _)| c.lease.partition.as_ref()).collect::<Vec<&str>>());
        let query = query.bind(kept.iter().map(|(c, _)| &*c.item).collect::<Vec<_>>());
        let query = query.bind(kept.iter().map(|(_, k)| k.gate).collect::<Vec<_>>());
        let query = query.bind(kept.iter().map(|(_, k)| k.data.bytes.as_ref()).collect::<Vec<&[u8]>>());
        let query = query.bind(kept.iter().map(|(_, k)| k.data.content_type.as_str()).collect::<Vec<_>>());
        query.execute(tx.conn()?).await.map_err(translate)?;
        let moved = || kept.iter().filter(|(c, k)| c.change.gate != k.gate).map(|(c, _)| c);
        let query = tx.query(self.sql.get(FORGET));
        let query = query.bind(moved().map(|c| c.lease.partition.as_ref()).collect::<Vec<&str>>());
        let query = query.bind(moved().map(|c| &*c.item).collect::<Vec<_>>());
        let query = query.bind(moved().map(|c| c.change.gate).collect::<Vec<_>>());
        query.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }
}
