//! Tries several ways to one end.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;

/// The first success among attempts, or the last failure; `None` without an attempt. Each attempt
/// begins `pause` after the one before it, or as soon as that has failed: a healthy first one has
/// its way alone, and those that hang hold up nobody.
pub(crate) async fn first_ok<T, E, F>(
    attempts: impl IntoIterator<Item = F>,
    pause: Duration,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut last = None;
    loop {
        running.extend(waiting.next());
        if running.is_empty() {
            return last;
        }
        let next = match waiting.peek() {
            Some(_) => timeout(pause, running.next()).await.unwrap_or(None),
            None => running.next().await,
        };
        if let Some(outcome) = next {
            let ok = outcome.is_ok();
            last = Some(outcome);
            if ok {
                return last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    type Attempt = BoxFuture<'static, Result<u8, u8>>;

    #[tokio::test]
    async fn one_that_hangs_or_fails_does_not_keep_the_next_one_from_winning() {
        let attempts: [Attempt; 4] = [
            pending().boxed(),
            ready(Err(1)).boxed(),
            pending().boxed(),
            ready(Ok(2)).boxed(),
        ];
        let first = first_ok(attempts, Duration::from_millis(1)).await;
        assert_eq!(first, Some(Ok(2)));
    }

    #[tokio::test]
    async fn the_last_failure_is_returned_when_all_fail() {
        let attempts: [Attempt; 2] = [ready(Err(1)).boxed(), ready(Err(2)).boxed()];
        let outcome = first_ok(attempts, Duration::from_secs(60)).await;
        assert_eq!(outcome, Some(Err(2)));
        let none: [Attempt; 0] = [];
        assert_eq!(first_ok(none, Duration::from_secs(60)).await, None);
    }
}
