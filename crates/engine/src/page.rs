//! Paging: reads due items ahead of the deliveries, several partitions at a time.

use std::{sync::Arc, time::Duration};

use crate::{
    clock,
    context::{Backoff, Context},
};

/// Reads until told to stop.
pub(crate) async fn run(context: Arc<Context>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while !context.stop.is_cancelled() {
        let requests = context.board().pages(clock::now());
        if requests.is_empty() {
            wait(&context).await;
            continue;
        }
        match context.store.page(&requests).await {
            Ok(pages) => {
                backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
                let mut board = context.board();
                for (request, page) in requests.iter().zip(pages) {
                    board.page_loaded(&request.lease, page);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not read items; trying again");
                requests.iter().for_each(|request| context.board().page_failed(&request.lease));
                tokio::select! {
                    () = backoff.pause() => {}
                    () = context.stop.cancelled() => {}
                }
            }
        }
        context.ring();
    }
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
