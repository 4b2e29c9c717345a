//! The conformance suite against every kind of server.

#[path = "support/mod.rs"]
mod support;

use sessionkit_conformance::containers::{RedisCluster, RedisSentinel, Server};
use support::{RedisHarness, tls_server};

mod resp3 {
    use super::*;
    sessionkit_conformance::suite!(
        RedisHarness::new(Server::Redis.shared().await)
            .with_proxy()
            .await
    );
}

mod resp2 {
    use super::*;
    sessionkit_conformance::suite!(
        RedisHarness::resp2(Server::Redis.shared().await)
            .with_proxy()
            .await
    );
}

mod tls {
    use super::*;
    sessionkit_conformance::suite!(RedisHarness::new(tls_server().await).with_proxy().await);
}

mod valkey {
    use super::*;
    sessionkit_conformance::suite!(
        RedisHarness::new(Server::Valkey.shared().await)
            .with_proxy()
            .await
    );
}

mod cluster {
    use super::*;
    sessionkit_conformance::suite!(RedisHarness::new(RedisCluster::shared().await));
}

mod sentinel {
    use super::*;
    sessionkit_conformance::suite!(RedisHarness::new(RedisSentinel::shared().await));
}
