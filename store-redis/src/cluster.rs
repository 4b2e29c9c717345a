//! Which node of a cluster serves a key, kept up to date by what the nodes answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    connection::Connector,
    failure::{Code, Effect, Failure, Refusal},
    node::{ConnectionSource, Node, Settings},
    race::first_ok,
    url::Address,
};

const SLOTS: usize = 16384;

/// How often a command follows the redirections of the nodes before it is put off.
const MAX_HOPS: usize = 5;

/// How long one node may take to describe the cluster, and when the next one is asked too.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(700);
const NEXT_NODE: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    connector: Connector,
    settings: Settings,
    seeds: Vec<Address>,
    map: RwLock<Arc<Map>>,
    /// Nodes that others have pointed to and that serve no slot: those that are about to get some.
    importing: Mutex<HashMap<Address, Arc<Node>>>,
    /// Whether something hints at a change since the map was made.
    stale: Arc<AtomicBool>,
    describing: Arc<tokio::sync::Mutex<()>>,
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
    pub(crate) fn new(connector: Connector, seeds: Vec<Address>, settings: Settings) -> Self {
        Self {
            connector,
            settings,
            seeds,
            map: RwLock::default(),
            importing: Mutex::default(),
            stale: Arc::new(AtomicBool::new(true)),
            describing: Arc::default(),
            descriptions: AtomicUsize::new(0),
        }
    }

    /// Sends a command to the node of a key, and after it where that node points.
    pub(crate) async fn send(
        self: &Arc<Self>,
        key: &[u8],
        cmd: &Cmd,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mut node = self.node_of(slot(key), deadline).await?;
        let mut asking = false;
        for _ in 0..MAX_HOPS {
            let sent = if asking {
                node.send_asking(cmd, effect, deadline).await
            } else {
                node.send(cmd, effect, deadline).await
            };
            match sent {
                Err(Failure::Refused(refusal)) => {
                    asking = refusal.code() == Code::Ask;
                    node = match self.follow(&refusal, &node) {
                        Some(node) => node,
                        None => return Err(self.judge(refusal)),
                    };
                }
                Err(failure) => return Err(self.doubt(failure)),
                answer => return answer,
            }
        }
        Err(self.doubt(Failure::Unsent("the nodes point in circles".into())))
    }

    /// Every node that serves slots.
    pub(crate) async fn nodes(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Vec<Arc<Node>>, Failure> {
        self.refresh(deadline).await?;
        Ok(self.map().nodes.values().cloned().collect())
    }

    /// For every node that serves slots, a key of one of them which begins with `prefix`.
    pub(crate) async fn key_on_each_node(
        self: &Arc<Self>,
        prefix: &[u8],
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        self.refresh(deadline).await?;
        let map = self.map();
        if map.slots.iter().any(Option::is_none) {
            return Err(self.doubt(Failure::Unsent("no node serves some of the slots".into())));
        }
        let mut found = HashMap::new();
        for number in 0_u32.. {
            if found.len() == map.nodes.len() {
                break;
            }
            let key = [prefix, number.to_string().as_bytes()].concat();
            let node = map.slots[slot(&key)].as_ref();
            if let Some(address) = node.and_then(|node| node.address()) {
                found.entry(address).or_insert(key);
            }
        }
        Ok(found.into_values().collect())
    }

    /// The node of a slot. One that is known is tried while another request asks how the cluster
    /// looks now: that may take time, and what has not changed should not wait for it.
    async fn node_of(
        self: &Arc<Self>,
        slot: usize,
        deadline: Instant,
    ) -> Result<Arc<Node>, Failure> {
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
        known().ok_or_else(|| self.doubt(Failure::Unsent("no node serves the slot".into())))
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
        let mut importing = self.importing();
        let node = importing.entry(address);
        Some(Arc::clone(
            node.or_insert_with_key(|address| self.node(address.clone())),
        ))
    }

    fn judge(&self, refusal: Refusal) -> Failure {
        if matches!(refusal.code(), Code::ReadOnly | Code::Later | Code::Moved) {
            self.stale.store(true, Ordering::Release);
        }
        Failure::Refused(refusal)
    }

    fn doubt(&self, failure: Failure) -> Failure {
        self.stale.store(true, Ordering::Release);
        failure
    }

    async fn refresh(self: &Arc<Self>, deadline: Instant) -> Result<(), Failure> {
        match self.stale.load(Ordering::Acquire) {
            true => self.describe(deadline).await,
            false => Ok(()),
        }
    }

    /// Asks how the cluster looks. One request does, the others wait for it; it is done to its end,
    /// also when nobody has the patience.
    async fn describe(self: &Arc<Self>, deadline: Instant) -> Result<(), Failure> {
        let late = || Failure::Unsent("the cluster was not described in time".into());
        let describing = timeout_at(deadline, Arc::clone(&self.describing).lock_owned())
            .await
            .map_err(|_| late())?;
        if !self.stale.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let cluster = Arc::clone(self);
        let described = tokio::spawn(async move {
            let _describing = describing;
            cluster.ask_nodes().await
        });
        match timeout_at(deadline, described).await {
            Ok(described) => {
                described.unwrap_or_else(|error| Err(self.doubt(Failure::Unsent(error.into()))))
            }
            Err(_) => Err(late()),
        }
    }

    async fn ask_nodes(&self) -> Result<(), Failure> {
        let old = self.map();
        let nodes = self.candidates(&old);
        let asked: Vec<_> = nodes
            .iter()
            .map(|(address, node)| self.ask(address, node, &old))
            .collect();
        let map = first_ok(asked, NEXT_NODE)
            .await
            .unwrap_or_else(|| Err(Failure::Unsent("the cluster has no node".into())))
            .map_err(|failure| self.doubt(failure))?;
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        self.importing().retain(|_, node| node.is_connected());
        Ok(())
    }

    async fn ask(&self, address: &Address, node: &Node, old: &Map) -> Result<Map, Failure> {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        let answer = node.send(&cmd, Effect::Read, deadline).await?;
        self.read(address, &answer, old)
            .ok_or_else(|| Failure::Unsent("a node describes no cluster".into()))
    }

    /// Whom to ask: first the nodes with a connection, and each time another one of them, because one
    /// that is cut off from the others has nothing new to tell. The seeds come in between: when all
    /// nodes have other addresses, nobody else knows them.
    fn candidates(&self, old: &Map) -> Vec<(Address, Arc<Node>)> {
        let mut known: Vec<_> = old
            .nodes
            .iter()
            .map(|(address, node)| (address.clone(), Arc::clone(node)))
            .collect();
        let turn = self.descriptions.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(known.len()).unwrap_or(0);
        known.rotate_left(first);
        known.sort_by_key(|(_, node)| !node.is_connected());
        let seeds = self.seeds.iter();
        let seeds = seeds.filter(|seed| !old.nodes.contains_key(seed));
        let mut seeds = seeds.map(|seed| (seed.clone(), self.node(seed.clone())));
        let mut candidates = Vec::new();
        for node in known {
            candidates.push(node);
            candidates.extend(seeds.next());
        }
        candidates.extend(seeds);
        candidates
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
                let known = known.or_else(|| self.importing().remove(address));
                known.unwrap_or_else(|| self.node(address.clone()))
            });
            let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
            map.slots.get_mut(slots)?.fill(Some(Arc::clone(node)));
        }
        (!map.nodes.is_empty()).then_some(map)
    }

    fn node(&self, address: Address) -> Arc<Node> {
        let source = ConnectionSource::ClusterNode {
            connector: self.connector.clone(),
            address,
        };
        let stale = Arc::clone(&self.stale);
        Arc::new(Node::new(source, self.settings, stale))
    }

    fn importing(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.importing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
