//! Races that are repeated until calls have really met.

use std::{sync::Arc, time::Instant};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{Error, ErrorKind, Record, Result, Revision, SessionStore, Timestamp, Token};

use crate::{Context, Outcome, verdict::ended};

pub(super) type Store = Arc<dyn SessionStore>;
pub(super) type Answer = BoxFuture<'static, Result<Token>>;

/// Repeats a race until calls have really met, within reason.
pub(super) struct Rounds<'a> {
    cx: &'a Context,
    pub(super) handles: [Store; 2],
    pub(super) round: usize,
    start: Instant,
}

impl<'a> Rounds<'a> {
    pub(super) async fn new(cx: &'a Context) -> Outcome<Self> {
        Ok(Self {
            cx,
            handles: [cx.open().await?, cx.open().await?],
            round: 0,
            start: Instant::now(),
        })
    }

    /// Whether to go on: at least 20 rounds, then until calls have met eight times or ten seconds
    /// are over.
    pub(super) fn next(&mut self) -> bool {
        self.round += 1;
        self.round <= 20 || (self.cx.contention() < 8 && self.start.elapsed().as_secs() < 10)
    }

    pub(super) fn handle(&self, number: usize) -> Store {
        Arc::clone(&self.handles[number % 2])
    }

    pub(super) async fn race(&self, calls: Vec<Answer>) -> Outcome<Vec<Result<Token>>> {
        self.cx.race(calls).await
    }

    pub(super) fn create(&self, number: usize, token: &Token, record: &Record) -> Answer {
        let (store, token, record) = (self.handle(number), token.clone(), record.clone());
        async move { store.create(token, &record).await }.boxed()
    }

    pub(super) fn update(
        &self,
        number: usize,
        token: &Token,
        expected: Revision,
        record: &Record,
    ) -> Answer {
        let (store, token, record) = (self.handle(number), token.clone(), record.clone());
        async move { store.update(&token, expected, &record).await }.boxed()
    }

    pub(super) fn touch(&self, number: usize, token: &Token, expires_at: Timestamp) -> Answer {
        let (store, token) = (self.handle(number), token.clone());
        async move { store.touch(&token, expires_at).await }.boxed()
    }

    /// A delete, which fails with [`Missing`](ErrorKind::Missing) when it has ended nothing.
    pub(super) fn delete(
        &self,
        number: usize,
        token: &Token,
        expected: Option<Revision>,
    ) -> Answer {
        let (store, token) = (self.handle(number), token.clone());
        async move { ended(store.delete(&token, expected).await).map(|()| token) }.boxed()
    }

    /// A live record under a new token.
    pub(super) async fn start(&self) -> Outcome<(Token, Record)> {
        let (token, record) = (self.cx.token(), self.cx.record("first"));
        self.handles[0].create(token.clone(), &record).await?;
        Ok((token, record))
    }

    pub(super) async fn gone(&self, when: &str, token: &Token) -> Outcome {
        self.cx.settle().await;
        for handle in &self.handles {
            self.cx.absent(when, handle, token).await?;
        }
        Ok(())
    }

    pub(super) async fn kept(&self, when: &str, token: &Token, record: &Record) -> Outcome {
        self.cx.settle().await;
        for handle in &self.handles {
            self.cx.holds(when, handle, token, record).await?;
        }
        Ok(())
    }
}

/// The one call that succeeded; all others failed in this way.
pub(super) fn winner(
    cx: &Context,
    what: &str,
    answers: &[Result<Token>],
    kinds: &[ErrorKind],
) -> Outcome<usize> {
    let won: Vec<_> = (0..answers.len())
        .filter(|number| answers[*number].is_ok())
        .collect();
    let expected = format!("1 of {} {what} succeeds", answers.len());
    cx.check(
        won.len() == 1,
        expected,
        format_args!("{} succeed", won.len()),
    )?;
    for answer in answers.iter().filter(|answer| answer.is_err()) {
        cx.err_in(&format!("one of the other {what}"), kinds, as_ref(answer))?;
    }
    Ok(won[0])
}

/// An answer to look at again.
pub(super) fn as_ref(answer: &Result<Token>) -> Result<&Token> {
    let copy = |error: &Error| Error::new(error.kind(), error.to_string());
    answer.as_ref().map_err(copy)
}
