//! Which node of a cluster serves a key, kept up to date by what the nodes answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, Value};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    address::Address,
    fault::{Code, Fault, Refusal},
    line::{Dialer, Target},
    node::{Node, Supply},
};

const SLOTS: usize = 16384;

/// How often a command follows the pointers of the nodes before it is put off.
const MAX_HOPS: usize = 5;

/// How long one node may take to describe the cluster.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(700);

pub(crate) struct Cluster {
    dialer: Dialer,
    connections: usize,
    seeds: Vec<Address>,
    map: RwLock<Arc<Map>>,
    /// Nodes that others have pointed to and that serve no slot: those that are about to get some.
    guests: Mutex<HashMap<Address, Arc<Node>>>,
    /// Whether something hints at a change since the map was made.
    stale: AtomicBool,
    describing: tokio::sync::Mutex<()>,
    /// How often the cluster was described.
    descriptions: AtomicUsize,
}

/// The nodes, and the one of each slot.
#[derive(Default)]
struct Map {
    nodes: HashMap<Address, Arc<Node>>,
    slots: Vec<Option<Arc<Node>>>,
}

impl Cluster {
    pub(crate) fn new(dialer: Dialer, seeds: Vec<Address>, connections: usize) -> Self {
        Self {
            dialer,
            connections,
            seeds,
            map: RwLock::default(),
            guests: Mutex::default(),
            stale: AtomicBool::new(true),
            describing: tokio::sync::Mutex::default(),
            descriptions: AtomicUsize::new(0),
        }
    }

    /// Sends a command to the node of a key, and after it where that node points.
    pub(crate) async fn send(
        &self,
        key: &[u8],
        cmd: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let mut node = self.node_of(slot(key), deadline).await?;
        let mut asking = false;
        for _ in 0..MAX_HOPS {
            let sent = if asking {
                node.send_asking(cmd, deadline).await
            } else {
                node.send(cmd, deadline).await
            };
            match sent {
                Err(Fault::Refused(refusal)) => {
                    asking = refusal.code() == Code::Ask;
                    node = match self.follow(&refusal, &node) {
                        Some(node) => node,
                        None => return Err(self.doubt_refused(refusal)),
                    };
                }
                Err(fault) => return Err(self.doubt(fault)),
                answer => return answer,
            }
        }
        Err(self.doubt(Fault::Unsent("the nodes point in circles".into())))
    }

    /// Every node that serves slots.
    pub(crate) async fn nodes(&self, deadline: Instant) -> Result<Vec<Arc<Node>>, Fault> {
        if self.stale.load(Ordering::Acquire) {
            self.describe(deadline).await?;
        }
        Ok(self.map().nodes.values().cloned().collect())
    }

    /// Sends a command to every node that serves slots.
    pub(crate) async fn send_to_all(
        &self,
        cmd: &Cmd,
        deadline: Instant,
    ) -> Result<Vec<Value>, Fault> {
        if self.stale.load(Ordering::Acquire) {
            self.describe(deadline).await?;
        }
        let map = self.map();
        let answers = map.nodes.values().map(|node| node.send(cmd, deadline));
        let answers = join_all(answers).await.into_iter();
        answers
            .map(|answer| answer.map_err(|fault| self.doubt(fault)))
            .collect()
    }

    /// The node of a slot. One that is known is tried while another request asks how the cluster
    /// looks now: that may take time, and what has not changed should not wait for it.
    async fn node_of(&self, slot: usize, deadline: Instant) -> Result<Arc<Node>, Fault> {
        let known = || self.map().slots.get(slot).cloned().flatten();
        if self.stale.load(Ordering::Acquire) {
            let node = known();
            if node.is_none() || self.describing.try_lock().is_ok() {
                let described = self.describe(deadline).await;
                if node.is_none() {
                    described?;
                }
            }
        }
        known().ok_or_else(|| self.doubt(Fault::Unsent("no node serves the slot".into())))
    }

    /// The node that a redirection points to. One without a host is at the host of the node that
    /// points to it.
    fn follow(&self, refusal: &Refusal, from: &Node) -> Option<Arc<Node>> {
        let target = refusal.moved_to.as_deref()?;
        let port = target.strip_prefix(':').and_then(|port| port.parse().ok());
        let address = match (port, from.address()) {
            (Some(port), Some(from)) => Address {
                host: from.host.clone(),
                port,
            },
            _ => Address::parse(target, 0)?,
        };
        if refusal.code() == Code::Moved {
            self.stale.store(true, Ordering::Release);
        }
        if let Some(node) = self.map().nodes.get(&address) {
            return Some(Arc::clone(node));
        }
        let mut guests = self.guests();
        let guest = guests.entry(address);
        Some(Arc::clone(
            guest.or_insert_with_key(|address| self.node(address.clone())),
        ))
    }

    fn doubt_refused(&self, refusal: Refusal) -> Fault {
        if matches!(refusal.code(), Code::ReadOnly | Code::Later | Code::Moved) {
            self.stale.store(true, Ordering::Release);
        }
        Fault::Refused(refusal)
    }

    fn doubt(&self, fault: Fault) -> Fault {
        self.stale.store(true, Ordering::Release);
        fault
    }

    /// Asks the nodes, one after the other, how the cluster looks. One request does, the others wait
    /// for it.
    async fn describe(&self, deadline: Instant) -> Result<(), Fault> {
        let _describing = timeout_at(deadline, self.describing.lock())
            .await
            .map_err(|_| Fault::Unsent("the cluster was not described in time".into()))?;
        if !self.stale.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mut fault = Fault::Unsent("no node of the cluster answers".into());
        let old = self.map();
        for (address, node) in self.witnesses(&old) {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("SLOTS");
            match timeout(DESCRIBE_TIMEOUT, node.send(&cmd, deadline)).await {
                Ok(Ok(answer)) => match self.read(&address, &answer, &old) {
                    Some(map) => {
                        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
                        self.guests().retain(|_, guest| guest.is_connected());
                        return Ok(());
                    }
                    None => fault = Fault::Unsent("a node describes no cluster".into()),
                },
                Ok(Err(why)) => fault = why,
                Err(_) => fault = Fault::Unsent("a node does not answer".into()),
            }
        }
        Err(self.doubt(fault))
    }

    /// Whom to ask: first the nodes with a connection, and each time another one of them, because one
    /// that is cut off from the others has nothing new to tell.
    fn witnesses(&self, old: &Map) -> Vec<(Address, Arc<Node>)> {
        let mut nodes: Vec<_> = old
            .nodes
            .iter()
            .map(|(address, node)| (address.clone(), Arc::clone(node)))
            .collect();
        let turn = self.descriptions.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(first);
        nodes.sort_by_key(|(_, node)| !node.is_connected());
        let seeds = self.seeds.iter();
        let unknown = seeds.filter(|seed| !old.nodes.contains_key(seed));
        nodes.extend(unknown.map(|seed| (seed.clone(), self.node(seed.clone()))));
        nodes
    }

    /// Reads the answer to `CLUSTER SLOTS`. Nodes that stay keep their connections.
    fn read(&self, from: &Address, answer: &Value, old: &Map) -> Option<Map> {
        let mut map = Map {
            nodes: HashMap::new(),
            slots: vec![None; SLOTS],
        };
        let Value::Array(ranges) = answer else {
            return None;
        };
        for range in ranges {
            let Value::Array(range) = range else {
                return None;
            };
            let (Value::Int(first), Value::Int(last), Value::Array(master)) =
                (range.first()?, range.get(1)?, range.get(2)?)
            else {
                return None;
            };
            let Some(address) = address_in(from, master) else {
                continue;
            };
            let node = map.nodes.entry(address).or_insert_with_key(|address| {
                let known = old.nodes.get(address).cloned();
                let known = known.or_else(|| self.guests().remove(address));
                known.unwrap_or_else(|| self.node(address.clone()))
            });
            let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
            map.slots.get_mut(slots)?.fill(Some(Arc::clone(node)));
        }
        (!map.nodes.is_empty()).then_some(map)
    }

    fn node(&self, address: Address) -> Arc<Node> {
        let supply = Supply::Server {
            dialer: self.dialer.clone(),
            target: Target::Tcp(address),
        };
        Arc::new(Node::new(supply, self.connections))
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Host and port out of a node's description; a node that does not know its own host leaves it out.
fn address_in(from: &Address, node: &[Value]) -> Option<Address> {
    let host = match node.first()? {
        Value::BulkString(host) if host == b"?" => return None,
        Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) if !host.is_empty() => host.clone(),
        _ => from.host.clone(),
    };
    match node.get(1)? {
        Value::Int(port) => Some(Address {
            host,
            port: u16::try_from(*port).ok()?,
        }),
        _ => None,
    }
}

/// The slot of a key: CRC-16/XMODEM of its tag, the part between the first `{` and the next `}`, or
/// of all of it.
pub(crate) fn slot(key: &[u8]) -> usize {
    let tag = key
        .iter()
        .position(|byte| *byte == b'{')
        .map(|open| &key[open + 1..])
        .and_then(|rest| {
            let close = rest.iter().position(|byte| *byte == b'}')?;
            (close > 0).then_some(&rest[..close])
        });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        CRC[usize::from((crc >> 8) as u8 ^ byte)] ^ (crc << 8)
    })
}

const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"somekey"), 11058);
        assert_eq!(slot(b"a{foo}b{bar}"), 12182);
        assert_eq!(slot(b"{}foo"), usize::from(crc16(b"{}foo")) % SLOTS);
        assert_eq!(slot(b"{foo"), usize::from(crc16(b"{foo")) % SLOTS);
    }
}
