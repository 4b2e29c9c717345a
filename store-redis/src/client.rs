//! Runs commands: in time, again where that is safe, and with the whole script where the server
//! does not know its hash.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{Cmd, Value};
use sessionkit::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::Cluster,
    failure::{Code, Effect, Failure},
    node::Node,
    script::{Answer, Call},
};

pub(crate) enum Topology {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
}

pub(crate) struct Client {
    pub(crate) topology: Topology,
    pub(crate) deadline: Duration,
}

/// The pauses before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl Client {
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// When a call that begins now has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Every master.
    pub(crate) async fn nodes(&self, deadline: Instant) -> Result<Vec<Arc<Node>>> {
        match &self.topology {
            Topology::One(node) => Ok(vec![Arc::clone(node)]),
            Topology::Cluster(cluster) => cluster
                .nodes(deadline)
                .await
                .map_err(|failure| failure.into_error(Effect::Read)),
        }
    }

    /// Writes, without a change, to every master.
    pub(crate) async fn ping(&self, prefix: &[u8], deadline: Instant) -> Result<()> {
        let keys = match &self.topology {
            Topology::One(_) => vec![prefix.to_vec()],
            Topology::Cluster(cluster) => cluster
                .key_on_each_node(prefix, deadline)
                .await
                .map_err(|failure| failure.into_error(Effect::Read))?,
        };
        let calls: Vec<_> = keys.iter().map(|key| Call::new("DEL", key)).collect();
        let pings = calls
            .iter()
            .map(|call| self.run(call, Effect::Read, deadline));
        join_all(pings)
            .await
            .into_iter()
            .try_for_each(|ping| ping.map(drop))
    }

    /// The numeric answer of a script.
    pub(crate) async fn answer(
        &self,
        call: &Call,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Answer> {
        match self.run(call, effect, deadline).await? {
            Value::Int(number) => Answer::from_number(number).ok_or_else(odd),
            _ => Err(odd()),
        }
    }

    pub(crate) async fn run(
        &self,
        call: &Call,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value> {
        self.attempt(call, effect, deadline)
            .await
            .map_err(|failure| failure.into_error(effect))
    }

    async fn attempt(
        &self,
        call: &Call,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mut pause = FIRST_PAUSE;
        let (mut reread, mut left) = (false, false);
        loop {
            let failure = match self.send(call, effect, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Unsent(_) | Failure::Replica => self.fails_over(),
                // A read without an answer may be repeated; where nobody takes over, only to find
                // out whether the server is still there.
                Failure::Lost(_) => {
                    effect == Effect::Read
                        && (self.fails_over() || !std::mem::replace(&mut reread, true))
                }
                Failure::Refused(refusal) => match refusal.code() {
                    Code::Later => true,
                    Code::Moved | Code::Ask => self.fails_over(),
                    // The connections were left, and new ones may lead to the present master.
                    Code::ReadOnly => self.fails_over() || !std::mem::replace(&mut left, true),
                    _ => false,
                },
                Failure::Late
                | Failure::Unconfirmed
                | Failure::ClusterNode
                | Failure::Misconfigured(..) => false,
            };
            let next = Instant::now() + pause;
            if !again || next >= deadline {
                return Err(failure);
            }
            sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send(&self, call: &Call, effect: Effect, deadline: Instant) -> Result<Value, Failure> {
        let sent = self.dispatch(&call.key, &call.cmd, effect, deadline).await;
        if let Err(Failure::Refused(refusal)) = &sent
            && refusal.code() == Code::NoScript
            && let Some(cmd) = call.with_source()
        {
            return Box::pin(self.dispatch(&call.key, &cmd, effect, deadline)).await;
        }
        sent
    }

    async fn dispatch(
        &self,
        key: &[u8],
        cmd: &Cmd,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        match &self.topology {
            Topology::One(node) => node.send(cmd, effect, deadline).await,
            // In a box, because it would make every call to a single server larger.
            Topology::Cluster(cluster) => Box::pin(cluster.send(key, cmd, effect, deadline)).await,
        }
    }

    fn fails_over(&self) -> bool {
        match &self.topology {
            Topology::One(node) => node.fails_over(),
            Topology::Cluster(_) => true,
        }
    }
}

/// The error for an answer that the command does not have.
pub(crate) fn odd() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the Redis server gives an answer that it cannot give",
    )
}
