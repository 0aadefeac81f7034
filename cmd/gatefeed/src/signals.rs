//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndSignal {
    Hangup,
    Interrupt,
    Terminate,
}

impl EndSignal {
    /// What shells report for a process that this signal ended: 128 and its number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Receives them. From its making on they no longer end the process by themselves.
pub(crate) struct Signals {
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// SIGINT and SIGTERM.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// And SIGHUP, for a process that has something to clean up when its terminal goes.
    pub(crate) fn with_hangup() -> io::Result<Self> {
        Ok(Self { hangup: Some(signal(SignalKind::hangup())?), ..Self::new()? })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> EndSignal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => EndSignal::Hangup,
            _ = self.interrupt.recv() => EndSignal::Interrupt,
            _ = self.terminate.recv() => EndSignal::Terminate,
        }
    }
}

/// A token that the first signal cancels; the second one ends the process.
pub(crate) fn clean_stop() -> io::Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = ?first, "stopping: finishing what is in flight; another signal ends it at once");
        stop.cancel();
        let second = signals.next().await;
        std::process::exit(second.exit_code().into());
    });
    Ok(token)
}
