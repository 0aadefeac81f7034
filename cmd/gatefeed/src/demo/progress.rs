//! How far the demo is: its gates as bars on a terminal, as lines elsewhere.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use gatefeed_core::{Result, Store};

use super::{PARTITION, handler::Handler};
use crate::{
    gates::{Bars, Gates, pace},
    output,
};

const BARS_INTERVAL: Duration = Duration::from_millis(50);
const LINES_INTERVAL: Duration = Duration::from_secs(3);

/// What is shown while the watcher works.
pub(crate) struct Progress {
    /// `None`: lines are printed.
    bars: Option<Bars>,
    gates: Gates,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { bars: Bars::new(), gates: Gates::default() }
    }

    /// Shows how far the partition is, for ever. That the database does not answer is the watcher's to tell.
    pub(crate) async fn follow(&mut self, store: &dyn Store, handler: &Handler) -> Infallible {
        let min = if self.bars.is_some() { BARS_INTERVAL } else { LINES_INTERVAL };
        let mut took = Duration::ZERO;
        loop {
            // The first bars are drawn at once; a first line would say nothing.
            if self.bars.is_none() || !took.is_zero() {
                tokio::time::sleep(pace(took, min)).await;
            }
            let started = Instant::now();
            if self.look(store, handler).await.is_ok() {
                self.show();
            }
            took = started.elapsed();
        }
    }

    /// Shows how far it came.
    pub(crate) async fn finish(mut self, store: &dyn Store, handler: &Handler) -> Result<()> {
        self.look(store, handler).await?;
        self.show();
        if let Some(bars) = self.bars {
            bars.end();
        }
        Ok(())
    }

    async fn look(&mut self, store: &dyn Store, handler: &Handler) -> Result<()> {
        let counts = store.gates(PARTITION).await?;
        let reached = store.partition(PARTITION).await?.map_or(0, |row| row.gate);
        self.gates.update(&counts, reached, |gate| handler.in_flight(gate));
        Ok(())
    }

    fn show(&self) {
        match &self.bars {
            Some(bars) => bars.show(&self.gates),
            None => output::note(&self.gates.line()),
        }
    }
}
