//! Paging: reads due items ahead of the deliveries, several partitions at a time.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{Result, StoreError, store::PageRequest};

use crate::{
    clock,
    context::{Backoff, Context},
};

/// How long a partition rests that cannot be read.
const UNREADABLE_REST: Duration = Duration::from_secs(5);

/// Reads until told to stop.
pub(crate) async fn run(context: Arc<Context>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while !context.stop.is_cancelled() {
        let requests = context.board().pages(clock::now());
        if requests.is_empty() {
            wait(&context).await;
            continue;
        }
        match read(&context, &requests).await {
            Ok(()) => backoff.reset(),
            Err(error) if !error.is_retryable() => match &requests[..] {
                [request] => rest(&context, request, &error),
                _ => read_each(&context, &requests).await,
            },
            Err(error) => {
                tracing::warn!(%error, "could not read items; trying again");
                requests
                    .iter()
                    .for_each(|request| context.board().page_failed(&request.lease, Duration::ZERO));
                context.pause(&mut backoff).await;
            }
        }
        context.ring();
    }
}

async fn read(context: &Context, requests: &[PageRequest]) -> Result<()> {
    let pages = context.store.page(requests).await?;
    let mut board = context.board();
    for (request, page) in requests.iter().zip(pages) {
        board.page_loaded(&request.lease, page);
    }
    Ok(())
}

/// One of the partitions has a row that cannot be read: it must not hold up the others.
async fn read_each(context: &Context, requests: &[PageRequest]) {
    for request in requests {
        if let Err(error) = read(context, std::slice::from_ref(request)).await {
            rest(context, request, &error);
        }
    }
}

fn rest(context: &Context, request: &PageRequest, error: &StoreError) {
    let partition = &request.lease.partition;
    tracing::warn!(%partition, %error, "could not read the items of this partition; trying again");
    context.board().page_failed(&request.lease, UNREADABLE_REST);
}

/// Until the bell rings or a resting partition's time has come.
async fn wait(context: &Context) {
    let rest_ends = context.board().next_rest_ends();
    let rest = async {
        match rest_ends {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = context.page_bell.notified() => {}
        () = context.stop.cancelled() => {}
        () = rest => context.board().freshen(false),
    }
}
