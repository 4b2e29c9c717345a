//! Sets of Redis servers that watch each other, all in one container: then killing one of them is
//! killing one process, and every node has the same address inside and outside.

use std::time::Duration;

use sessionkit::Result;
use tokio::time::{sleep, timeout};

use super::{Container, Server, container::free_ports, engine::failed, run};

/// How long the servers may take to find each other.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(100);

/// Starts one server of a set; `$1` is its port, what follows are options.
const START_NODE: &str = r#"
start() {
    port=$1; shift
    mkdir -p /data/$port
    redis-server --port $port --dir /data/$port --pidfile /data/$port/pid --daemonize yes \
        --protected-mode no --save '' --appendonly yes --repl-diskless-sync-delay 0 "$@" >/dev/null
}
"#;

/// A Redis Cluster of three masters with a replica each.
#[derive(Debug)]
pub struct RedisCluster {
    container: Container,
    ports: Vec<u16>,
}

impl RedisCluster {
    /// Starts a cluster of one's own.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable) when it cannot be started.
    pub async fn start() -> Result<Self> {
        let ports = free_ports(6)?;
        let nodes: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let url = format!("redis-cluster://{}", nodes.join(","));
        let starts: Vec<_> = ports
            .iter()
            .map(|port| Self::start_command(*port))
            .collect();
        let script = format!("{START_NODE}\n{}\nexec sleep infinity", starts.join("\n"));
        let mapped: Vec<_> = ports.iter().map(|port| (*port, *port)).collect();
        let container = Server::Redis
            .setup()
            .command(["sh", "-c", &script])
            .start_on(&mapped, url)
            .await?;
        let cluster = Self { container, ports };
        cluster.wait_for_nodes().await?;
        cluster.join(&nodes).await?;
        cluster.wait_until_settled().await?;
        Ok(cluster)
    }

    /// The URL of a cluster that all tests of this run share.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn shared() -> Result<String> {
        run::shared("redis-cluster", || async {
            Self::start().await.map(|cluster| cluster.container.leave())
        })
        .await
    }

    /// Where the cluster is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.container.url()
    }

    /// The ports of all nodes.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Moves slots with what is in them from one master to another, and returns when that is done.
    ///
    /// # Errors
    /// When it fails.
    pub async fn reshard(&self, from: u16, to: u16, slots: u16) -> Result<()> {
        let (source, target) = (
            self.cli(from, &["cluster", "myid"]).await?,
            self.cli(to, &["cluster", "myid"]).await?,
        );
        let (any, slots) = (format!("127.0.0.1:{from}"), slots.to_string());
        let reshard = ["redis-cli", "--cluster", "reshard", &any, "--cluster-yes"];
        let what = [
            "--cluster-from",
            &source,
            "--cluster-to",
            &target,
            "--cluster-slots",
            &slots,
        ];
        self.container
            .exec(&[&reshard[..], &what].concat())
            .await
            .map(drop)
    }

    /// The ports of the nodes that are masters now, as one that lives sees it.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn masters(&self) -> Result<Vec<u16>> {
        for port in &self.ports {
            let Ok(nodes) = self.cli(*port, &["cluster", "nodes"]).await else {
                continue;
            };
            return Ok(nodes
                .lines()
                .filter(|line| line.contains("master") && !line.contains("fail"))
                .filter_map(|line| line.split([':', '@']).nth(1)?.parse().ok())
                .collect());
        }
        Err(failed("no node of the cluster answers"))
    }

    /// The port of a master's replica.
    ///
    /// # Errors
    /// When there is none.
    pub async fn replica_of(&self, master: u16) -> Result<u16> {
        let id = self.cli(master, &["cluster", "myid"]).await?;
        let nodes = self.cli(master, &["cluster", "nodes"]).await?;
        let mut replicas = nodes.lines().filter(|line| {
            let mut fields = line.split(' ');
            fields.nth(3) == Some(id.trim())
        });
        let replica = replicas.next().and_then(|line| {
            let port = line.split([':', '@']).nth(1)?;
            port.parse().ok()
        });
        replica.ok_or_else(|| failed("the master has no replica"))
    }

    /// Makes a master without slots out of a replica, as one that has just been added to the cluster,
    /// and returns its port.
    ///
    /// # Errors
    /// When it fails.
    pub async fn empty_replica(&self) -> Result<u16> {
        let masters = self.masters().await?;
        let replica = self.ports.iter().find(|port| !masters.contains(port));
        let replica = *replica.ok_or_else(|| failed("the cluster has no replica"))?;
        self.cli(replica, &["cluster", "reset"]).await?;
        let (port, bus) = (masters[0].to_string(), bus_port(masters[0]).to_string());
        let meet = ["cluster", "meet", "127.0.0.1", &port, &bus];
        self.cli(replica, &meet).await?;
        timeout(SETTLE_TIMEOUT, async {
            while !self.have_met(replica, &masters).await {
                sleep(PAUSE).await;
            }
        })
        .await
        .map_err(|_| failed("the cluster does not take the node in"))?;
        Ok(replica)
    }

    /// Whether a node knows all the others, and those masters know it as one of them.
    async fn have_met(&self, port: u16, masters: &[u16]) -> bool {
        let Ok(known) = self.cli(port, &["cluster", "nodes"]).await else {
            return false;
        };
        if known.contains("handshake") || known.lines().count() < self.ports.len() {
            return false;
        }
        for master in masters {
            let nodes = self.cli(*master, &["cluster", "nodes"]).await;
            let node = format!(":{port}@");
            let mut lines = nodes.iter().flat_map(|nodes| nodes.lines());
            if !lines.any(|line| line.contains(&node) && line.contains("master")) {
                return false;
            }
        }
        true
    }

    /// Kills a node (signal 9).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, port: u16) -> Result<()> {
        self.signal(port, "KILL").await
    }

    /// Stops a node where it is: its connections stay open, and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, port: u16) -> Result<()> {
        self.signal(port, "STOP").await
    }

    /// Lets a stopped node go on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resume(&self, port: u16) -> Result<()> {
        self.signal(port, "CONT").await
    }

    /// Starts a killed node again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&self, port: u16) -> Result<()> {
        let script = format!("{START_NODE}\n{}", Self::start_command(port));
        self.container.exec(&["sh", "-c", &script]).await.map(drop)
    }

    /// Waits until every slot is served and every replica has what its master has: before that, a
    /// replica does not take over.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_until_settled(&self) -> Result<()> {
        timeout(SETTLE_TIMEOUT, async {
            while !self.is_settled().await {
                sleep(PAUSE).await;
            }
        })
        .await
        .map_err(|_| failed("the cluster does not come together"))
    }

    /// Waits until every replica has what its master has written so far: replication is asynchronous,
    /// and what has not arrived dies with the master.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_until_replicated(&self) -> Result<()> {
        for master in self.masters().await? {
            wait_for_replica(&self.container, master).await?;
        }
        Ok(())
    }

    /// Runs a command of `redis-cli` against one node.
    ///
    /// # Errors
    /// When it fails.
    pub async fn cli(&self, port: u16, command: &[&str]) -> Result<String> {
        cli(&self.container, port, command).await
    }

    fn start_command(port: u16) -> String {
        format!(
            "start {port} --cluster-enabled yes --cluster-config-file nodes.conf \
             --cluster-port {} --cluster-node-timeout 1000 --cluster-announce-ip 127.0.0.1 \
             --cluster-require-full-coverage no",
            bus_port(port)
        )
    }

    async fn join(&self, nodes: &[String]) -> Result<()> {
        let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
        let create = ["redis-cli", "--cluster", "create"];
        let options = ["--cluster-replicas", "1", "--cluster-yes"];
        let command = [&create[..], &nodes, &options].concat();
        self.container.exec(&command).await.map(drop)
    }

    async fn wait_for_nodes(&self) -> Result<()> {
        timeout(SETTLE_TIMEOUT, async {
            for port in &self.ports {
                while self.cli(*port, &["ping"]).await.is_err() {
                    sleep(PAUSE).await;
                }
            }
        })
        .await
        .map_err(|_| failed("the nodes of the cluster do not start"))
    }

    async fn is_settled(&self) -> bool {
        for port in &self.ports {
            let Ok(info) = self.cli(*port, &["cluster", "info"]).await else {
                return false;
            };
            let Ok(role) = self.cli(*port, &["info", "replication"]).await else {
                return false;
            };
            let connected = role.contains("role:master") || role.contains("master_link_status:up");
            if !info.contains("cluster_state:ok") || !connected {
                return false;
            }
        }
        self.masters().await.is_ok_and(|masters| masters.len() == 3)
    }

    async fn signal(&self, port: u16, signal: &str) -> Result<()> {
        signal_node(&self.container, port, signal).await
    }
}

/// The nodes of a cluster talk on a second port, only inside the container.
fn bus_port(port: u16) -> u16 {
    match port.checked_add(10_000) {
        Some(port) => port,
        None => port - 10_000,
    }
}

async fn cli(container: &Container, port: u16, command: &[&str]) -> Result<String> {
    let port = port.to_string();
    let args = [&["timeout", "2", "redis-cli", "-p", &port], command].concat();
    container.exec(&args).await
}

async fn wait_for_replica(container: &Container, master: u16) -> Result<()> {
    let written = offset(container, master, "master_repl_offset:").await?;
    timeout(SETTLE_TIMEOUT, async {
        while offset(container, master, "slave0:").await.unwrap_or(0) < written {
            sleep(PAUSE).await;
        }
    })
    .await
    .map_err(|_| failed("the replica does not follow its master"))
}

/// How far the replication is, as a line of the master's description says it.
async fn offset(container: &Container, master: u16, line: &str) -> Result<u64> {
    let info = cli(container, master, &["info", "replication"]).await?;
    let line = info.lines().find_map(|text| text.strip_prefix(line));
    let number = line.and_then(|line| {
        let field = line
            .split(',')
            .find_map(|field| field.strip_prefix("offset="));
        field.unwrap_or(line).trim().parse().ok()
    });
    number.ok_or_else(|| failed("the master has no replica"))
}

async fn signal_node(container: &Container, port: u16, signal: &str) -> Result<()> {
    let script = format!("kill -{signal} $(cat /data/{port}/pid)");
    container.exec(&["sh", "-c", &script]).await.map(drop)
}

/// A Redis master with a replica, watched by three Sentinels.
#[derive(Debug)]
pub struct RedisSentinel {
    container: Container,
    servers: Vec<u16>,
    sentinels: Vec<u16>,
}

impl RedisSentinel {
    /// Starts a set of one's own.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable) when it cannot be started.
    pub async fn start() -> Result<Self> {
        let ports = free_ports(5)?;
        let (servers, sentinels) = (ports[..2].to_vec(), ports[2..].to_vec());
        let hosts: Vec<_> = sentinels
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let url = format!("redis-sentinel://{}/main", hosts.join(","));
        let starts: Vec<_> = sentinels
            .iter()
            .map(|port| start_sentinel(*port, servers[0]))
            .collect();
        let script = format!(
            "{START_NODE}\n{}\n{}\n{}\nexec sleep infinity",
            Self::start_command(servers[0], None),
            Self::start_command(servers[1], Some(servers[0])),
            starts.join("\n")
        );
        let mapped: Vec<_> = ports.iter().map(|port| (*port, *port)).collect();
        let container = Server::Redis
            .setup()
            .command(["sh", "-c", &script])
            .start_on(&mapped, url)
            .await?;
        let set = Self {
            container,
            servers,
            sentinels,
        };
        set.container.wait().await?;
        set.wait_until_settled().await?;
        Ok(set)
    }

    /// The URL of a set that all tests of this run share.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn shared() -> Result<String> {
        run::shared("redis-sentinel", || async {
            Self::start().await.map(|set| set.container.leave())
        })
        .await
    }

    /// Where the Sentinels are.
    #[must_use]
    pub fn url(&self) -> &str {
        self.container.url()
    }

    /// The ports of the servers, the master and its replica.
    #[must_use]
    pub fn servers(&self) -> &[u16] {
        &self.servers
    }

    /// The port of the master, as the Sentinels see it.
    ///
    /// # Errors
    /// When none answers.
    pub async fn master(&self) -> Result<u16> {
        let command = ["sentinel", "get-master-addr-by-name", "main"];
        let answer = self.cli(self.sentinels[0], &command).await?;
        let port = answer.lines().nth(1).and_then(|port| port.parse().ok());
        port.ok_or_else(|| failed("the sentinels know no master"))
    }

    /// Has the Sentinels, not the servers, ask for a password.
    ///
    /// # Errors
    /// When they do not take it.
    pub async fn require_login(&self, password: &str) -> Result<()> {
        for port in &self.sentinels {
            let command = ["acl", "setuser", "default", "resetpass"];
            let password = format!(">{password}");
            self.cli(*port, &[&command[..], &[&password]].concat())
                .await?;
        }
        Ok(())
    }

    /// Kills a server (signal 9).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, port: u16) -> Result<()> {
        signal_node(&self.container, port, "KILL").await
    }

    /// Starts a killed server again, as a replica of the present master.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&self, port: u16) -> Result<()> {
        let master = self.master().await?;
        let script = format!("{START_NODE}\n{}", Self::start_command(port, Some(master)));
        self.container.exec(&["sh", "-c", &script]).await.map(drop)
    }

    /// Waits until the Sentinels know each other and the replica has what its master has.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_until_settled(&self) -> Result<()> {
        timeout(SETTLE_TIMEOUT, async {
            while !self.is_settled().await {
                sleep(PAUSE).await;
            }
        })
        .await
        .map_err(|_| failed("the sentinels do not come together"))
    }

    /// Waits until the replica has what the master has written so far.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_until_replicated(&self) -> Result<()> {
        wait_for_replica(&self.container, self.master().await?).await
    }

    async fn is_settled(&self) -> bool {
        for port in &self.sentinels {
            let Ok(info) = self.cli(*port, &["info", "sentinel"]).await else {
                return false;
            };
            if !info.contains("status=ok") || !info.contains("slaves=1,sentinels=3") {
                return false;
            }
        }
        let Ok(master) = self.master().await else {
            return false;
        };
        let replica = self.servers.iter().find(|port| **port != master);
        let Some(replica) = replica else {
            return false;
        };
        self.cli(*replica, &["info", "replication"])
            .await
            .is_ok_and(|info| info.contains("master_link_status:up"))
    }

    async fn cli(&self, port: u16, command: &[&str]) -> Result<String> {
        cli(&self.container, port, command).await
    }

    fn start_command(port: u16, master: Option<u16>) -> String {
        let replica = master.map_or(String::new(), |master| {
            format!("--replicaof 127.0.0.1 {master}")
        });
        format!("start {port} --replica-announce-ip 127.0.0.1 {replica}")
    }
}

fn start_sentinel(port: u16, master: u16) -> String {
    format!(
        "mkdir -p /data/{port}\n\
         printf '%s\\n' 'port {port}' 'dir /data/{port}' 'daemonize yes' 'protected-mode no' \
         'pidfile /data/{port}/pid' 'sentinel announce-ip 127.0.0.1' \
         'sentinel monitor main 127.0.0.1 {master} 2' \
         'sentinel down-after-milliseconds main 1000' 'sentinel failover-timeout main 3000' \
         >/data/{port}/sentinel.conf\n\
         redis-sentinel /data/{port}/sentinel.conf >/dev/null"
    )
}
