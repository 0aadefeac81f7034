//! Large data, which does not come with the pages. What is asked for while a statement runs is loaded together by the next:
//! for each statement the server makes its buffers anew, as large as the largest row, which costs it more than a row
//! of a megabyte by itself (docs/performance.md).

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use gatefeed_core::{Result, StoreError, item::Data};
use sqlx::postgres::PgRow;
use tokio::{sync::oneshot, time::timeout};

use super::{Postgres, error::translate, pool::Lane, rows::at};

/// For several items, which are then loaded one by one.
const LIMIT_TOGETHER: Duration = Duration::from_secs(10);

/// For one item: at first, since the connection may be dead, and then for a large one on a slow way. Together less than the
/// caller waits.
const LIMITS: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(60)];

/// Statements at a time, fewer than the lane has connections.
const LOADERS_MAX: usize = 2;

/// Items of one statement.
const TOGETHER_MAX: usize = 16;

/// What is still as it was delivered.
pub(super) const LOAD: &str = "SELECT w.number, i.data, i.content_type
    FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS w (partition_id, id, version, number)
    JOIN {schema}.gatefeed_items i
        ON i.partition_id = w.partition_id AND i.id = w.id AND i.version = w.version";

/// What was asked for and nobody loads yet.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    waiting: VecDeque<Order>,
    loaders: usize,
}

#[derive(Debug)]
struct Order {
    partition: String,
    item: String,
    version: i64,
    answer: oneshot::Sender<Result<Option<Data>>>,
}

impl Postgres {
    pub(super) async fn load_data(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        let (answer, answered) = oneshot::channel();
        let order = Order { partition: partition.to_owned(), item: item.to_owned(), version, answer };
        {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.waiting.push_back(order);
            if wanted.loaders < LOADERS_MAX {
                wanted.loaders += 1;
                tokio::spawn(self.clone().load_wanted());
            }
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the process is ending".into())))
    }

    /// Loads until nothing is left to load.
    async fn load_wanted(self) {
        while let Some(mut orders) = self.next_orders() {
            if orders.len() > 1 && self.load_in_time(&mut orders, LIMIT_TOGETHER).await.is_ok() {
                continue;
            }
            // One of them may be what cannot be read, or they are too much for the time.
            for order in orders.iter_mut().filter(|order| order.as_ref().is_some_and(Order::is_waited_for)) {
                self.load_alone(order).await;
            }
        }
    }

    async fn load_alone(&self, order: &mut Option<Order>) {
        let mut loaded = Ok(());
        for limit in LIMITS {
            loaded = self.load_in_time(std::slice::from_mut(order), limit).await;
            if !matches!(loaded, Err(StoreError::Unavailable(_))) {
                break;
            }
        }
        if let (Err(error), Some(order)) = (loaded, order.take()) {
            order.tell(Err(error));
        }
    }

    fn next_orders(&self) -> Option<Vec<Option<Order>>> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.waiting.retain(Order::is_waited_for);
        if wanted.waiting.is_empty() {
            wanted.loaders -= 1;
            return None;
        }
        let count = wanted.waiting.len().min(TOGETHER_MAX);
        Some(wanted.waiting.drain(..count).map(Some).collect())
    }

    /// A connection that is dead and does not say so must not keep the loader.
    async fn load_in_time(&self, orders: &mut [Option<Order>], limit: Duration) -> Result<()> {
        let loaded = timeout(limit, self.load_together(orders, limit)).await;
        loaded.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {limit:?}"))))
    }

    /// Answers each as soon as its row is there, and takes it out; what an error leaves has no answer yet.
    async fn load_together(&self, orders: &mut [Option<Order>], limit: Duration) -> Result<()> {
        let asked: Vec<&Order> = orders.iter().flatten().collect();
        let partitions: Vec<String> = asked.iter().map(|order| order.partition.clone()).collect();
        let items: Vec<String> = asked.iter().map(|order| order.item.clone()).collect();
        let versions: Vec<i64> = asked.iter().map(|order| order.version).collect();
        let mut tx = self.begin_single(Lane::Work, limit, limit).await?;
        let query = tx.query(self.sql.get(LOAD)).bind(partitions).bind(items).bind(versions);
        let mut rows = query.fetch(tx.conn()?);
        while let Some(row) = rows.try_next().await.map_err(translate)? {
            let (number, data) = (at::<i64>(&row, 0)?, data(&row)?);
            if let Some(order) = orders.get_mut(number as usize - 1).and_then(Option::take) {
                order.tell(Ok(Some(data)));
            }
        }
        drop(rows);
        tx.commit().await?;
        orders.iter_mut().filter_map(Option::take).for_each(|order| order.tell(Ok(None)));
        Ok(())
    }
}

impl Order {
    /// Whoever has given up does not listen any more.
    fn is_waited_for(&self) -> bool {
        !self.answer.is_closed()
    }

    fn tell(self, loaded: Result<Option<Data>>) {
        _ = self.answer.send(loaded);
    }
}

/// A copy: what a row came in is up to twice as large, and would be kept along (docs/performance.md).
fn data(row: &PgRow) -> Result<Data> {
    Ok(Data { bytes: Bytes::copy_from_slice(at(row, 1)?), content_type: at(row, 2)? })
}
