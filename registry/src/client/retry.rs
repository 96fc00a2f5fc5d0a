//! When to try again.

use std::time::Duration;

use super::ClientError;

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

    /// The wait after the failure number `failed` (from 1): a `fraction` of 0 to 1 of the upper half of the doubled time, so that
    /// many clients that lost the same server do not come back at the same moment.
    fn wait(&self, failed: u32, fraction: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << (failed - 1).min(20)).min(self.longest);
        ceiling.mul_f64(0.5 + 0.5 * fraction)
    }
}

/// What a try came to, if not to its end.
#[derive(Debug)]
pub(super) enum Failed {
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
pub(super) struct Tries<'a> {
    retry: Retry,
    url: &'a str,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(retry: Retry, url: &'a str) -> Self {
        Self { retry, url, failed: 0 }
    }

    /// Waits for the next try, or gives up.
    pub(super) async fn again(&mut self, failed: Failed) -> Result<(), ClientError> {
        let cause = match failed {
            Failed::Final(error) => return Err(error),
            Failed::Passing(cause) => cause,
        };
        self.failed += 1;
        if self.failed >= self.retry.tries {
            return Err(ClientError::Unreachable { url: self.url.to_owned(), tries: self.failed, cause });
        }
        let wait = self.retry.wait(self.failed, rand::random());
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
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_vary_in_their_upper_half() {
        let retry = Retry { tries: 9, first: Duration::from_millis(100), longest: Duration::from_millis(1000) };
        let ms = |failed, fraction| retry.wait(failed, fraction).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 60].map(|n| ms(n, 1.0)), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!([1, 2, 3, 4, 5, 60].map(|n| ms(n, 0.0)), [50, 100, 200, 400, 500, 500]);
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
