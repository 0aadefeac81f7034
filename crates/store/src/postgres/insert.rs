//! Adding partitions and items: for `push`, in a caller's own transaction, and for the children of an answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use gatefeed_core::{
    Result, StoreError,
    item::NewItem,
    partition::{NewPartition, elsewhere},
    request::{Answered, Request},
    store::{Push, Pushed},
};
use sqlx::{PgConnection, Postgres as Pg, postgres::PgArguments, query::Query};

use super::{
    Postgres,
    dependencies::Edges,
    error::translate,
    pool::{Lane, Tx},
    rows::get,
    schema::Sql,
    wake::Hint,
};

/// Rows of one statement, and bytes of their data unless a single one has more: a message of Postgres' protocol ends
/// at 1 GB.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 8 << 20;

/// For one statement of a push.
const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// For how long a push may lie idle between its statements: whoever reads its items from a pipe may have to wait
/// for them, but a client that is gone must not keep a partition from closing for ever.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Two pushes of the same ids, in different orders, wait for each other in a circle. Those of several statements go one
/// after another. One of a single statement runs beside all others: it waits for a row for less than Postgres'
/// `deadlock_timeout` (1 s), so that it is the one that gives way, and is repeated for this long.
const PATIENCE: Duration = Duration::from_secs(60);
const ROW_WAIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

const PARTITION: &str = "INSERT INTO {schema}.gatefeed_partitions
    (id, feed, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy, gate_deadline_seconds, keep_history)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";

/// In order of id, like every lock on several partitions.
const PARTITIONS: &str = "INSERT INTO {schema}.gatefeed_partitions (id, feed)
    SELECT n.id, n.feed FROM unnest($1::text[], $2::text[]) AS n (id, feed) ORDER BY n.id ON CONFLICT DO NOTHING";

/// Locks as the items' trigger does.
const FEEDS: &str = "SELECT p.id, p.feed <> n.feed AS is_elsewhere
    FROM unnest($1::text[], $2::text[]) AS n (id, feed)
    JOIN {schema}.gatefeed_partitions p ON p.id = n.id ORDER BY p.id FOR KEY SHARE OF p";

macro_rules! insert_items {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO {schema}.gatefeed_items
                (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate)
            SELECT n.partition_id, n.id, n.gate, n.priority, coalesce(n.available_at, now()), n.data, n.content_type,
                n.creator_id, n.creator_gate
            FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::timestamptz[], $6::bytea[], $7::text[],
                    $8::text[], $9::int[])
                AS n (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate)",
            $conflict
        )
    };
}

const ITEMS: &str = insert_items!(" ON CONFLICT DO NOTHING");

/// For ids that cannot exist yet: looking for conflicts costs a quarter of an insert.
const NEW_ITEMS: &str = insert_items!("");

/// Inserts through a connection that is in a transaction.
pub(super) struct Inserter<'c> {
    pub(super) connection: &'c mut PgConnection,
    pub(super) sql: &'c Sql,
    /// Whether prepared statements may be kept.
    pub(super) prepared: bool,
}

impl Inserter<'_> {
    pub(super) fn query<'q>(&self, template: &'static str) -> Query<'q, Pg, PgArguments> {
        sqlx::query(self.sql.get(template)).persistent(self.prepared)
    }

    /// Makes a partition if it is missing; returns whether it was.
    async fn partition(&mut self, partition: &NewPartition) -> Result<bool> {
        let max_in_flight = partition.max_in_flight.map(i32::try_from).transpose();
        let max_in_flight =
            max_in_flight.map_err(|_| StoreError::data("max_in_flight is over 2147483647"))?;
        let query = self.query(PARTITION).bind(&partition.id).bind(&partition.feed);
        let query =
            query.bind(partition.priority).bind(partition.manual_checkpoint).bind(partition.auto_close);
        let query = query.bind(max_in_flight).bind(partition.failure_policy.to_string());
        let query = query.bind(partition.gate_deadline_seconds()?).bind(partition.keep_history);
        let made = query.execute(&mut *self.connection).await.map_err(translate)?.rows_affected() == 1;
        if !made && partition.own_feed_only {
            self.check_feeds(vec![&partition.id], vec![&partition.feed]).await?;
        }
        Ok(made)
    }

    /// Errs where a partition exists in another feed than the one at its place: to its caller there is none. Those that
    /// exist stay until the transaction has ended.
    pub(super) async fn check_feeds(&mut self, ids: Vec<&str>, feeds: Vec<&str>) -> Result<()> {
        let query = self.query(FEEDS).bind(ids).bind(feeds);
        let rows = query.fetch_all(&mut *self.connection).await.map_err(translate)?;
        for row in &rows {
            if get(row, "is_elsewhere")? {
                return Err(elsewhere(get(row, "id")?));
            }
        }
        Ok(())
    }

    /// Makes the partitions that are missing, each in the feed it comes with.
    pub(super) async fn partitions(&mut self, partitions: BTreeMap<&str, &str>) -> Result<()> {
        let (ids, feeds): (Vec<&str>, Vec<&str>) = partitions.into_iter().unzip();
        let query = self.query(PARTITIONS).bind(ids).bind(feeds);
        query.execute(&mut *self.connection).await.map_err(translate)?;
        Ok(())
    }

    /// Adds items whose ids do not exist yet, with what they depend on; returns how many.
    pub(super) async fn items(&mut self, items: &[&NewItem]) -> Result<u64> {
        let mut edges = Edges::default();
        let added = self.insert(ITEMS, items, &mut edges).await?;
        self.dependencies(edges).await?;
        Ok(added)
    }

    /// What they depend on may come later: it is put to `edges`.
    async fn insert(&mut self, sql: &'static str, items: &[&NewItem], edges: &mut Edges) -> Result<u64> {
        if items.iter().copied().all(is_plain) {
            return self.plain_items(sql, items).await;
        }
        let (plain, rich): (Vec<&NewItem>, Vec<&NewItem>) =
            items.iter().copied().partition(|item| is_plain(item));
        Ok(self.plain_items(sql, &plain).await? + self.rich_items(&rich, edges).await?)
    }

    async fn plain_items(&mut self, sql: &'static str, items: &[&NewItem]) -> Result<u64> {
        let mut added = 0;
        for items in statements(items) {
            let query = bind_items(self.query(sql), items);
            added += query.execute(&mut *self.connection).await.map_err(translate)?.rows_affected();
        }
        Ok(added)
    }
}

/// What every insert of items takes, as `$1` to `$9`.
pub(super) fn bind_items<'q>(
    query: Query<'q, Pg, PgArguments>,
    items: &[&'q NewItem],
) -> Query<'q, Pg, PgArguments> {
    let all = || items.iter();
    let query = query.bind(all().map(|i| i.partition.as_str()).collect::<Vec<_>>());
    let query = query.bind(all().map(|i| i.id.as_str()).collect::<Vec<_>>());
    let query = query.bind(all().map(|i| i.gate).collect::<Vec<_>>());
    let query = query.bind(all().map(|i| i.priority).collect::<Vec<_>>());
    let query = query.bind(all().map(|i| i.available_at).collect::<Vec<_>>());
    let query = query.bind(all().map(|i| i.data.bytes.as_ref()).collect::<Vec<&[u8]>>());
    let query = query.bind(all().map(|i| i.data.content_type.as_str()).collect::<Vec<_>>());
    let creators = || all().map(|i| i.creator.as_ref());
    let query = query.bind(creators().map(|c| c.map(|c| c.item.as_str())).collect::<Vec<_>>());
    query.bind(creators().map(|c| c.map(|c| c.gate)).collect::<Vec<_>>())
}

/// Whether it waits for nothing and asks for nothing, as most items do.
fn is_plain(item: &NewItem) -> bool {
    item.dependencies.is_empty() && item.gather.is_none()
}

/// Cuts items into those of one statement each.
pub(super) fn statements<'a, 'i>(mut items: &'a [&'i NewItem]) -> impl Iterator<Item = &'a [&'i NewItem]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&NewItem| {
            bytes += item.data.bytes.len();
            bytes <= BYTES_MAX
        };
        let fitting = items.iter().take(ROWS_MAX).copied().take_while(fits).count();
        let (statement, rest) = items.split_at(fitting.max(1).min(items.len()));
        items = rest;
        (!statement.is_empty()).then_some(statement)
    })
}

/// What a lock that cannot be had means to whoever pushes.
fn busy(partition: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Locked(_) => StoreError::Locked(format!(
            "another push into partition {partition:?} is open and has not committed: wait for its end, or end it"
        )),
        error => error,
    }
}

fn over() -> StoreError {
    StoreError::Refused("this push has failed and was rolled back: begin another one".into())
}

/// A push inside a transaction that the caller has open. The triggers notify at the caller's commit.
pub(crate) async fn push_into(
    connection: &mut PgConnection,
    schema: &str,
    partition: &NewPartition,
    items: &[NewItem],
) -> Result<Pushed> {
    NewItem::check_partition(items, &partition.id)?;
    let sql = Sql::of(schema)?;
    // What the caller's connection leads through is unknown: no prepared statement is kept.
    let mut inserter = Inserter { connection, sql: &sql, prepared: false };
    let created = inserter.partition(partition).await?;
    let statement = Growing::new(created).statement(items);
    let mut edges = Edges::default();
    let added = inserter.insert(statement, &items.iter().collect::<Vec<_>>(), &mut edges).await?;
    inserter.dependencies(edges).await?;
    let mut pushed = Pushed { created, ..Pushed::default() };
    pushed.count(items.len(), added);
    Ok(pushed)
}

/// A push that is under way.
pub(super) struct Pushing {
    store: Postgres,
    /// Gone after an error: that is a rollback.
    tx: Option<Tx>,
    partition: String,
    pushed: Pushed,
    growing: Growing,
    /// Inserted at the end: what an item depends on may come after it.
    edges: Edges,
}

/// Tells whether ids can exist already: not while they grow in a partition that the same transaction has made, since
/// nobody else sees it yet. Holds the greatest id so far; `None`: they can.
struct Growing(Option<String>);

impl Growing {
    fn new(created: bool) -> Self {
        Self(created.then(String::new))
    }

    /// The statement for the next items.
    fn statement(&mut self, items: &[NewItem]) -> &'static str {
        let (Some(greatest), Some(first), Some(last)) = (&self.0, items.first(), items.last()) else {
            return ITEMS;
        };
        let grow = *greatest < first.id && items.is_sorted_by(|a, b| a.id < b.id);
        self.0 = grow.then(|| last.id.clone());
        if grow { NEW_ITEMS } else { ITEMS }
    }
}

impl Postgres {
    /// A push whose items come bit by bit.
    pub(super) async fn start_push(&self, partition: &NewPartition) -> Result<Pushing> {
        let begun = async {
            let mut tx = self.begin_push(partition, STATEMENT_MAX).await?;
            tx.idle_for(IDLE_MAX).await?;
            self.be_alone(&mut tx, &partition.id).await?;
            self.pushing(tx, partition).await
        };
        begun.await.map_err(|error| busy(&partition.id, error))
    }

    async fn begin_push(&self, partition: &NewPartition, lock_wait: Duration) -> Result<Tx> {
        self.begin_for(&partition.id, Lane::Push, STATEMENT_MAX, lock_wait).await
    }

    /// Waits until no other push of several statements into this partition is open.
    async fn be_alone(&self, tx: &mut Tx, partition: &str) -> Result<()> {
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('gatefeed push ' || $1 || ' ' || $2, 0))";
        let lock = tx.query(lock).bind(&self.sql.schema).bind(partition);
        lock.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }

    /// A push of items that are all here, by nobody who would ask again.
    pub(super) async fn push_whole(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        match self.push_all(partition, items, None).await? {
            Answered::Now(pushed) | Answered::Before(pushed) => Ok(pushed),
            Answered::Conflict => Err(StoreError::Defect("a push without a key has a conflict".into())),
        }
    }

    /// A push of items that are all here, as often as it takes.
    pub(super) async fn push_all(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: Option<&Request>,
    ) -> Result<Answered> {
        let mut sorted = items.to_vec();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        let started = Instant::now();
        loop {
            match self.push_once(partition, &sorted, request).await {
                Err(StoreError::Locked(_) | StoreError::Conflict(_)) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                pushed => return pushed.map_err(|error| busy(&partition.id, error)),
            }
        }
    }

    async fn push_once(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: Option<&Request>,
    ) -> Result<Answered> {
        let all: Vec<&NewItem> = items.iter().collect();
        let tx = match statements(&all).count() {
            0 | 1 => self.begin_push(partition, ROW_WAIT).await?,
            _ => {
                let mut tx = self.begin_push(partition, STATEMENT_MAX).await?;
                self.be_alone(&mut tx, &partition.id).await?;
                tx
            }
        };
        let mut push = Box::new(self.pushing(tx, partition).await?);
        if let Some(request) = request
            && let Some(answered) = push.note(request).await?
        {
            return Ok(answered);
        }
        push.add(items).await?;
        if let Some(request) = request {
            push.settle(request).await?;
        }
        push.commit().await.map(Answered::Now)
    }

    async fn pushing(&self, mut tx: Tx, partition: &NewPartition) -> Result<Pushing> {
        let created = self.inserter(&mut tx)?.partition(partition).await?;
        let pushed = Pushed { created, ..Pushed::default() };
        let (store, partition, growing) = (self.clone(), partition.id.clone(), Growing::new(created));
        let edges = Edges::default();
        Ok(Pushing { store, tx: Some(tx), partition, pushed, growing, edges })
    }

    pub(super) fn inserter<'c>(&'c self, tx: &'c mut Tx) -> Result<Inserter<'c>> {
        let prepared = tx.is_prepared();
        Ok(Inserter { connection: tx.conn()?, sql: &self.sql, prepared })
    }
}

impl Pushing {
    /// Notes the request that this push is for. Its answer, if it came before: then this push is over.
    async fn note(&mut self, request: &Request) -> Result<Option<Answered>> {
        let mut tx = self.tx.take().ok_or_else(over)?;
        let answered = self.store.note_request(&mut tx, &self.partition, request).await?;
        match answered {
            Some(_) => tx.rollback().await?,
            None => self.tx = Some(tx),
        }
        Ok(answered)
    }

    async fn settle(&mut self, request: &Request) -> Result<()> {
        let tx = self.tx.as_mut().ok_or_else(over)?;
        self.store.settle_request(tx, &self.partition, request, self.pushed).await
    }
}

#[async_trait]
impl Push for Pushing {
    async fn add(&mut self, items: &[NewItem]) -> Result<()> {
        let mut tx = self.tx.take().ok_or_else(over)?;
        NewItem::check_partition(items, &self.partition)?;
        let all: Vec<&NewItem> = items.iter().collect();
        let statement = self.growing.statement(items);
        let added = self.store.inserter(&mut tx)?.insert(statement, &all, &mut self.edges).await;
        let added = added.map_err(|error| busy(&self.partition, error))?;
        self.tx = Some(tx);
        self.pushed.count(items.len(), added);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Pushed> {
        let Self { store, tx, partition, pushed, edges, .. } = *self;
        let mut tx = tx.ok_or_else(over)?;
        store.inserter(&mut tx)?.dependencies(edges).await.map_err(|error| busy(&partition, error))?;
        // The partition may have been there already, in another feed.
        let feed = store.feed_of(&mut tx, &partition).await?;
        tx.commit().await?;
        store.announce(vec![Hint::Due(feed)]).await;
        Ok(pushed)
    }
}

#[cfg(test)]
mod tests {
    use gatefeed_core::item::Data;

    use super::*;

    fn statements(created: bool, batches: &[&[&str]]) -> Vec<bool> {
        let mut growing = Growing::new(created);
        let items =
            |ids: &&[&str]| ids.iter().map(|id| NewItem::new("p", *id, Data::json("1"))).collect::<Vec<_>>();
        batches.iter().map(|ids| growing.statement(&items(ids)) == NEW_ITEMS).collect()
    }

    #[test]
    fn a_statement_has_so_many_rows_or_bytes_at_the_most() {
        let item = |bytes: usize| NewItem::new("p", "i", Data::json(vec![b'1'; bytes]));
        let cut = |sizes: &[usize]| {
            let items: Vec<NewItem> = sizes.iter().map(|size| item(*size)).collect();
            super::statements(&items.iter().collect::<Vec<_>>()).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[1; 4_500]), [2_000, 2_000, 500]);
        let mib = 1 << 20;
        assert_eq!(cut(&[3 * mib, 5 * mib, mib, 9 * mib, mib]), [2, 1, 1, 1]);
        assert_eq!(cut(&[]), Vec::<usize>::new());
    }

    #[test]
    fn only_ids_that_grow_in_a_new_partition_are_surely_new() {
        assert_eq!(statements(true, &[&["a", "b"], &["c"]]), [true, true]);
        assert_eq!(statements(false, &[&["a", "b"]]), [false]);
        assert_eq!(statements(true, &[&["b", "a"]]), [false]);
        assert_eq!(statements(true, &[&["a", "a"]]), [false]);
        assert_eq!(statements(true, &[&["a", "b"], &["b"], &["z"]]), [true, false, false]);
        assert_eq!(statements(true, &[&["b"], &[], &["a"]]), [true, false, false]);
    }
}
