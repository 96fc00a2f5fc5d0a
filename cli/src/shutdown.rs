//! How the program ends on a signal.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long a role may take to end in order after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Cancels `stop` on SIGINT or SIGTERM.
pub(crate) fn stop_on_signal(stop: CancellationToken) {
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
}

/// Roles end their own way on a signal (see [`stop_on_signal`]); for every other verb Ctrl-C is the
/// end.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    // A role that shuts down in order gets the time to do so.
    tokio::time::sleep(GRACE).await;
}
