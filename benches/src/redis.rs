//! Redis: the raw client on one shared connection, this store, and a checkout from a pool for each
//! command. The server is the one of `SESSIONKIT_TEST_REDIS_URL`, which `scripts/bench` starts in a
//! container and addresses directly, not by a published port, unless the variable is set.

use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use http::HeaderMap;
use sessionkit::{CookieName, Record, SessionStore, SystemClock, Token};
use sessionkit_redis::{RedisOptions, RedisStore, deadpool_redis};

use crate::{
    core::manager,
    measure::{Comparison, median, time_tasks},
    payload::{new_tokens, record, visitor},
};

const SESSIONS: usize = 10_000;
const COUNT: usize = 40_000;
const GROWTH_ROUNDS: usize = 7;
const GROWTH_SESSIONS: usize = 1_000;

/// What the store writes before the payload of a session without a subject.
const HEADER: usize = 23;

/// As much as a compare-and-swap needs, and nothing of ours.
const SWAP: &str = "if redis.call('GETRANGE', KEYS[1], 0, 8) ~= ARGV[1] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3]) return 1";

#[derive(Clone)]
struct Scene {
    raw: MultiplexedConnection,
    pool: deadpool_redis::Pool,
    store: Arc<RedisStore>,
    /// With one connection.
    single: Arc<RedisStore>,
    tokens: Arc<Vec<Token>>,
    keys: Arc<Vec<Vec<u8>>>,
    value: Arc<Vec<u8>>,
    record: Arc<Record>,
    swap: Arc<::redis::Script>,
}

pub async fn run(rounds: usize) {
    let scene = Scene::open(&server()).await;
    for tasks in [1, 64] {
        let count = if tasks == 1 { COUNT / 32 } else { COUNT };
        for operation in ["load", "update", "create", "delete"] {
            compare(&scene, operation, tasks, count, rounds).await;
        }
    }
    memory(&scene).await;
}

/// How load and update depend on the number of sessions.
pub async fn grow() {
    let scene = Scene::open(&server()).await;
    scene.empty().await;
    println!(
        "\nredis, 64 tasks: microseconds by the number of sessions (median of {GROWTH_ROUNDS})"
    );
    println!(
        "{:>10} {:>10} {:>10} {:>10}",
        "sessions", "raw GET", "load", "update"
    );
    let mut tokens = Vec::new();
    for size in [1_000, 100_000, 1_000_000] {
        let more = Arc::new(new_tokens(size - tokens.len()));
        create_all(&scene, &more).await;
        tokens.extend(more.iter().cloned());
        // Spread over all of them, the same number at each size.
        let step = tokens.len() / GROWTH_SESSIONS;
        let chosen: Vec<_> = tokens.iter().step_by(step).map(copy_of).collect();
        let scene = Scene {
            keys: Arc::new(chosen.iter().map(|token| key("bench#", token)).collect()),
            tokens: Arc::new(chosen),
            ..scene.clone()
        };
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..GROWTH_ROUNDS {
            for (number, times) in times.iter_mut().enumerate() {
                let scene = scene.clone();
                let nanos = time_tasks(64, COUNT, move |call| {
                    let scene = scene.clone();
                    async move {
                        match number {
                            0 => scene.raw_call("load", call).await,
                            1 => scene.our_call("load", call).await,
                            _ => scene.our_call("update", call).await,
                        }
                    }
                });
                times.push(nanos.await / 1000.0);
            }
        }
        let [raw, load, update] = times.map(|times| median(&times));
        println!("{size:>10} {raw:>10.1} {load:>10.1} {update:>10.1}");
    }
    scene.empty().await;
}

async fn create_all(scene: &Scene, tokens: &Arc<Vec<Token>>) {
    let (scene, tokens) = (scene.clone(), Arc::clone(tokens));
    let count = tokens.len();
    time_tasks(64, count, move |number| {
        let (scene, tokens) = (scene.clone(), Arc::clone(&tokens));
        async move {
            let created = scene.store.create(tokens[number].clone(), &scene.record);
            drop(created.await.expect("it is new"));
        }
    })
    .await;
}

fn server() -> String {
    let Ok(url) = std::env::var("SESSIONKIT_TEST_REDIS_URL") else {
        eprintln!("redis: set SESSIONKIT_TEST_REDIS_URL to a server without other users");
        std::process::exit(2);
    };
    println!("\nredis at {url}");
    url
}

/// In memory of its own: those among a million others are not in the processor's cache, and it is
/// the server that is measured.
fn copy_of(token: &Token) -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::from_bytes(token.expose().to_vec(), &name)
}

/// As long as the store's own, and after its prefix the same.
fn key(prefix: &str, token: &Token) -> Vec<u8> {
    [prefix.as_bytes(), &token.key().as_bytes()[..20]].concat()
}

impl Scene {
    async fn open(url: &str) -> Self {
        let options = || RedisOptions::from_url(url).expect("a URL").prefix("bench");
        let client = ::redis::Client::open(url).expect("a URL");
        // A busy machine takes longer than the half second that the client allows.
        let patient = ::redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(std::time::Duration::from_secs(5)));
        let raw = client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .expect("the server answers");
        let config = deadpool_redis::Config::from_url(url);
        let pool = config
            .builder()
            .expect("a URL")
            .max_size(16)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .expect("a pool");
        let tokens = new_tokens(COUNT);
        Self {
            raw,
            pool,
            store: Arc::new(options().open().await.expect("the store opens")),
            single: Arc::new(
                options()
                    .connections(1)
                    .open()
                    .await
                    .expect("the store opens"),
            ),
            keys: Arc::new(tokens.iter().map(|token| key("raws#", token)).collect()),
            tokens: Arc::new(tokens),
            // As long as what the store writes.
            value: Arc::new([&[1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 14], &record().data].concat()),
            record: Arc::new(record()),
            swap: Arc::new(::redis::Script::new(SWAP)),
        }
    }

    async fn empty(&self) {
        let mut raw = self.raw.clone();
        ::redis::cmd("FLUSHDB")
            .exec_async(&mut raw)
            .await
            .expect("the server answers");
    }

    async fn fill(&self, count: usize) {
        self.empty().await;
        let scene = self.clone();
        time_tasks(64, count, move |number| {
            let scene = scene.clone();
            async move {
                scene.raw_call("create", number).await;
                scene.our_call("create", number).await;
            }
        })
        .await;
    }

    fn command(&self, operation: &str, number: usize) -> ::redis::Cmd {
        let key = &self.keys[number % self.keys.len()];
        let mut cmd = ::redis::Cmd::new();
        match operation {
            "load" => cmd.arg("GET").arg(key),
            "delete" => cmd.arg("DEL").arg(key),
            "set" => cmd
                .arg("SET")
                .arg(key)
                .arg(&*self.value)
                .arg("PXAT")
                .arg(expiry()),
            "update" => cmd
                .arg("EVALSHA")
                .arg(self.swap.get_hash())
                .arg(1)
                .arg(key)
                .arg(&self.value[..9])
                .arg(&*self.value)
                .arg(expiry()),
            _ => cmd
                .arg("SET")
                .arg(key)
                .arg(&*self.value)
                .arg("NX")
                .arg("PXAT")
                .arg(expiry()),
        };
        cmd
    }

    async fn raw_call(&self, operation: &str, number: usize) {
        let mut raw = self.raw.clone();
        let answer = raw
            .send_packed_command(&self.command(operation, number))
            .await;
        drop(
            answer
                .and_then(::redis::Value::extract_error)
                .expect("the server answers"),
        );
    }

    async fn pooled_call(&self, operation: &str, number: usize) {
        let mut connection = self.pool.get().await.expect("a connection");
        let answer = connection
            .send_packed_command(&self.command(operation, number))
            .await;
        drop(
            answer
                .and_then(::redis::Value::extract_error)
                .expect("the server answers"),
        );
    }

    async fn our_call(&self, operation: &str, number: usize) {
        self.call(&self.store, operation, number).await;
    }

    async fn single_call(&self, operation: &str, number: usize) {
        self.call(&self.single, operation, number).await;
    }

    async fn call(&self, store: &RedisStore, operation: &str, number: usize) {
        let token = &self.tokens[number % self.tokens.len()];
        let record = &*self.record;
        match operation {
            "load" => drop(
                store
                    .load(token)
                    .await
                    .expect("the server answers")
                    .expect("it is there"),
            ),
            "delete" => drop(store.delete(token, None).await.expect("the server answers")),
            "update" => drop(
                store
                    .update(token, record.revision, record)
                    .await
                    .expect("it is there"),
            ),
            _ => drop(
                store
                    .create(token.clone(), record)
                    .await
                    .expect("it is new"),
            ),
        }
    }
}

async fn compare(
    scene: &Scene,
    operation: &'static str,
    tasks: usize,
    count: usize,
    rounds: usize,
) {
    let sessions = if matches!(operation, "load" | "update") {
        SESSIONS
    } else {
        count
    };
    let mut raw = scene.raw.clone();
    scene
        .swap
        .load_async(&mut raw)
        .await
        .expect("the server answers");
    let prepare = move |scene: Scene| async move {
        match operation {
            "create" => scene.empty().await,
            "delete" => scene.fill(count).await,
            _ => {}
        }
        scene
    };
    if matches!(operation, "load" | "update") {
        scene.fill(sessions).await;
    }
    macro_rules! contender {
        ($call:ident, $operation:expr) => {{
            let scene = scene.clone();
            move || {
                let scene = scene.clone();
                async move {
                    let scene = prepare(scene).await;
                    time_tasks(tasks, count, move |number| {
                        let scene = scene.clone();
                        async move { scene.$call($operation, number % sessions).await }
                    })
                    .await
                }
            }
        }};
    }
    let mut comparison = Comparison::new(format!("redis, {operation}, {tasks} tasks"))
        .add(
            "redis, one shared connection",
            contender!(raw_call, operation),
        )
        .add("sessionkit RedisStore", contender!(our_call, operation))
        .add(
            "sessionkit RedisStore, one connection",
            contender!(single_call, operation),
        );
    if operation == "update" {
        comparison = comparison.add(
            "redis, one shared connection, plain SET",
            contender!(raw_call, "set"),
        );
    }
    comparison
        .add(
            "deadpool-redis (16), a checkout each",
            contender!(pooled_call, operation),
        )
        .print(rounds)
        .await;
}

/// What one real session takes of the server, sealed as an application stores it.
async fn memory(scene: &Scene) {
    scene.empty().await;
    let manager = manager(Arc::clone(&scene.store));
    let sessions = manager.begin(&HeaderMap::new());
    let session = sessions.session().await.expect("it is new");
    session
        .insert("visitor", &visitor())
        .expect("it is a value");
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.expect("it is stored");
    let mut raw = scene.raw.clone();
    let keys: Vec<Vec<u8>> = ::redis::cmd("KEYS")
        .arg("bench#*")
        .query_async(&mut raw)
        .await
        .expect("keys");
    let mut about = async |command: &[&str]| {
        let mut cmd = ::redis::cmd(command[0]);
        let answer = cmd.arg(&command[1..]).arg(&keys[0]).query_async(&mut raw);
        answer.await.expect("the server answers")
    };
    let (used, stored): (usize, usize) =
        (about(&["MEMORY", "USAGE"]).await, about(&["STRLEN"]).await);
    let (values, payload) = (record().data.len(), stored - HEADER);
    println!(
        "\nredis, memory of a real session, sealed: {used} bytes for a payload of {payload} \
         ({values} of them are its values), ratio to payload + 64: {:.2}",
        used as f64 / (payload + 64) as f64
    );
    scene.empty().await;
}

fn expiry() -> i64 {
    let now = sessionkit::Clock::now(&SystemClock);
    (now + std::time::Duration::from_secs(3600)).as_millis()
}
