//! What has ended of all that is waited for: a probe each, which costs a statement what a row of one would.

use gatefeed_core::inspect::Awaited;

use super::{Sqlite, error::Result, pool::Lane};

const PARTITION: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_partitions WHERE id = ?
    AND status NOT IN ('complete', 'failed', 'cancelled'))";

const ITEM: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_items WHERE partition_id = ? AND id = ?
    AND status IN ('available', 'waiting', 'blocked'))";

impl Sqlite {
    pub(super) async fn find_ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        let mut connection = self.lanes.read(Lane::Ask).await?;
        let mut ended = Vec::with_capacity(awaited.len());
        for awaited in awaited {
            let query = match awaited {
                Awaited::Partition(id) => sqlx::query_scalar(PARTITION).bind(id),
                Awaited::Item { partition, id } => sqlx::query_scalar(ITEM).bind(partition).bind(id),
            };
            let is_open: bool = query.fetch_one(&mut *connection).await?;
            ended.push(!is_open);
        }
        Ok(ended)
    }
}
