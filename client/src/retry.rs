//! When to try again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use crate::error::ClientError;

/// How often a request is tried and how long is waited between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least one.
    pub tries: u32,
    /// Longest wait after the first failure; doubles with each.
    pub first: Duration,
    /// Where the doubling ends.
    pub longest: Duration,
}

impl Default for Retry {
    /// Seven tries over about six seconds: a coordinator that is being restarted is back by then.
    fn default() -> Self {
        Self { tries: 7, first: Duration::from_millis(200), longest: Duration::from_secs(4) }
    }
}

impl Retry {
    /// One try.
    pub const NONE: Self = Self { tries: 1, first: Duration::ZERO, longest: Duration::ZERO };

    /// The waits between tries. Each is a random part of the upper half of the doubled time, so that many clients that lost the
    /// same server do not come back at the same moment.
    fn waits(self) -> ExponentialBackoff {
        // The jitter adds up to as much again: half the time, and with it the upper half.
        ExponentialBuilder::default()
            .with_min_delay(self.first / 2)
            .with_max_delay(self.longest / 2)
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(self.tries.saturating_sub(1) as usize)
            .build()
    }
}

/// What a try came to, if not to its end.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It may go better another time.
    Passing(String),
    /// It will not.
    Final(ClientError),
}

impl<E: Into<ClientError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// The tries of one request.
pub(crate) struct Tries<'a> {
    retry: Retry,
    url: &'a str,
    waits: ExponentialBackoff,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(retry: Retry, url: &'a str) -> Self {
        Self { retry, url, waits: retry.waits(), failed: 0 }
    }

    /// Waits for the next try, or gives up.
    pub(crate) async fn again(&mut self, failed: Failed) -> Result<(), ClientError> {
        let cause = match failed {
            Failed::Final(error) => return Err(error),
            Failed::Passing(cause) => cause,
        };
        self.failed += 1;
        let Some(wait) = self.waits.next() else {
            return Err(ClientError::Unreachable { url: self.url.to_owned(), tries: self.failed, cause });
        };
        tracing::debug!(
            url = self.url,
            try_number = self.failed,
            wait_ms = wait.as_millis() as u64,
            cause,
            "request failed, trying again"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Something was achieved: the next failure is the first again.
    pub(crate) fn progressed(&mut self) {
        *self = Self::new(self.retry, self.url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_vary_in_their_upper_half() {
        let retry = Retry { tries: 9, first: Duration::from_millis(100), longest: Duration::from_millis(1000) };
        let (mut least, mut most) = ([f64::INFINITY; 8], [0.0_f64; 8]);
        for _ in 0..1000 {
            let waits: Vec<f64> = retry.waits().map(|wait| wait.as_secs_f64() * 1000.0).collect();
            assert_eq!(waits.len(), 8, "one fewer than tries");
            for (n, wait) in waits.into_iter().enumerate() {
                (least[n], most[n]) = (least[n].min(wait), most[n].max(wait));
            }
        }
        // A thousand draws come near both ends.
        for (n, ceiling) in [100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0, 1000.0, 1000.0].into_iter().enumerate() {
            assert!((0.5 * ceiling..0.52 * ceiling).contains(&least[n]), "{n}: {}", least[n]);
            assert!((0.98 * ceiling..=ceiling).contains(&most[n]), "{n}: {}", most[n]);
        }
    }

    #[test]
    fn gives_up_after_the_last_try_and_at_once_when_it_is_final() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let retry = Retry { tries: 3, first: Duration::ZERO, longest: Duration::ZERO };
            let mut tries = Tries::new(retry, "http://x/y");
            tries.again(Failed::Passing("a".into())).await.unwrap();
            tries.progressed();
            tries.again(Failed::Passing("b".into())).await.unwrap();
            tries.again(Failed::Passing("c".into())).await.unwrap();
            let error = tries.again(Failed::Passing("connection refused".into())).await.unwrap_err();
            assert_eq!(error.to_string(), "cannot reach http://x/y after 3 tries: connection refused");
            let mut tries = Tries::new(retry, "http://x/y");
            let lost = ClientError::Foreign { url: "u".into(), reason: "r".into() };
            assert!(matches!(tries.again(Failed::Final(lost)).await, Err(ClientError::Foreign { .. })));
        });
    }
}
