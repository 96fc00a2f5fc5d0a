//! Wake-ups between the parts of one coordinator. The database holds the truth; a signal only says that looking again is worth it.

use std::time::Duration;

use tokio::sync::watch;

/// "Something changed". A listener that subscribes before it looks at the database misses nothing.
#[derive(Debug)]
pub(crate) struct Signal(watch::Sender<u64>);

/// One listener of a [`Signal`].
#[derive(Debug)]
pub(crate) struct Listener(watch::Receiver<u64>);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(crate) fn raise(&self) {
        self.0.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Returns when the signal was raised since the last return (or since [`Signal::listen`]), or when `limit` has passed.
    pub(crate) async fn wait(&mut self, limit: Duration) {
        // A closed channel means that the coordinator is going away; the caller finds out by itself, but must not spin.
        if let Ok(Err(_)) = tokio::time::timeout(limit, self.0.changed()).await {
            tokio::time::sleep(limit).await;
        }
    }
}
