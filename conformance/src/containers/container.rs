use std::{collections::HashMap, net::TcpListener, time::Duration};

use sessionkit::{Entropy, OsEntropy, Result};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt, bollard::models::PortBinding, core::ContainerPort,
    runners::AsyncRunner,
};

use super::{
    Server,
    engine::{docker, docker_now, failed},
    probe, run,
};
use crate::Random;

/// How long a server may take to come up: less than a case of the kit, which waits for it.
const START_TIMEOUT: Duration = Duration::from_secs(45);

/// Where the ports of containers are looked for, and how often.
const FIRST_PORT: u16 = 20_000;
const PORTS: usize = 10_000;
const MAX_TRIES: usize = 1_000;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    server: Server,
    command: Option<Vec<String>>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    tls: bool,
    careless: bool,
}

impl Setup {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            command: None,
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            tls: false,
            careless: false,
        }
    }

    /// Adds an argument for the server.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments for the server.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the container's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Puts a file into the container, readable for everybody.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    /// Says that the server is reached by TLS, which the arguments have to set up.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Runs another program than the server.
    pub(super) fn command<A: Into<String>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.command = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// Trades durability for speed.
    pub(super) fn careless(mut self) -> Self {
        self.careless = true;
        self
    }

    /// Starts a container and waits until the server in it answers. It is removed when the
    /// [`Container`] is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable) when there is no container
    /// engine, no image, or the server does not come up; the message says what to do.
    pub async fn start(self) -> Result<Container> {
        let port = free_ports(1)?[0];
        let inside = self.server.port();
        let mut url = self.server.url(port);
        if self.tls {
            url = url.replacen("://", "s://", 1);
        }
        let container = self.start_on(&[(port, inside)], url).await?;
        container.wait().await?;
        Ok(container)
    }

    /// The URL of a server with this setup that all tests of this run share under a name.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn shared(self, name: &str) -> Result<String> {
        run::shared(name, || async {
            self.careless().start().await.map(Container::leave)
        })
        .await
    }

    /// Starts a container whose ports are published as given, host port first.
    pub(super) async fn start_on(self, ports: &[(u16, u16)], url: String) -> Result<Container> {
        let (name, tag) = self.server.image().await?;
        run::ensure_reaper()?;
        let bindings: HashMap<_, _> = ports
            .iter()
            .map(|(host, inside)| (format!("{inside}/tcp"), Some(vec![on_loopback(*host)])))
            .collect();
        let image = ports
            .iter()
            .fold(GenericImage::new(&name, &tag), |image, (_, inside)| {
                image.with_exposed_port(ContainerPort::Tcp(*inside))
            });
        let mut request = image
            .with_cmd(self.full_command())
            .with_label(run::LABEL, run::key())
            .with_host_config_modifier(move |config| {
                config.publish_all_ports = Some(false);
                config.port_bindings = Some(bindings.clone());
            });
        for (name, value) in self.env {
            request = request.with_env_var(name, value);
        }
        for (path, content) in self.files {
            request = request.with_copy_to(path, content);
        }
        let inner = request.start().await.map_err(|error| {
            failed(format!(
                "no container of {name}:{tag}: run scripts/images, or set {}",
                self.server.variable("IMAGE")
            ))
            .with_source(error)
        })?;
        Ok(Container {
            id: inner.id().to_owned(),
            url,
            inner,
        })
    }

    fn full_command(&self) -> Vec<String> {
        if let Some(command) = &self.command {
            return command.clone();
        }
        let careless = self.server.careless_args().iter().filter(|_| self.careless);
        [self.server.program()]
            .into_iter()
            .chain(careless.copied())
            .map(str::to_owned)
            .chain(self.args.iter().cloned())
            .collect()
    }
}

/// A server in a container of its own, which may be broken.
pub struct Container {
    id: String,
    url: String,
    inner: ContainerAsync<GenericImage>,
}

impl Container {
    /// Where the server is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the server (signal 9). Its files stay.
    ///
    /// # Errors
    /// When the container engine fails.
    pub async fn kill(&self) -> Result<()> {
        docker(&["kill", &self.id]).await.map(drop)
    }

    /// Starts a killed server again, on the same port, and waits until it answers.
    ///
    /// # Errors
    /// When the container engine fails or the server does not come up.
    pub async fn restart(&self) -> Result<()> {
        docker(&["start", &self.id]).await?;
        self.wait().await
    }

    /// Stops the processes of the server where they are (as signal 19 does): connections stay open
    /// and nothing answers. They go on when the guard is dropped.
    ///
    /// # Errors
    /// When the container engine fails.
    pub async fn pause(&self) -> Result<Guard> {
        docker(&["pause", &self.id]).await?;
        Ok(Guard::new(["unpause", &self.id]))
    }

    /// Cuts the network cable: no packet comes or goes, and nobody is told. It is plugged in again
    /// when the guard is dropped.
    ///
    /// # Errors
    /// When the container engine fails.
    pub async fn cut(&self) -> Result<Guard> {
        let format = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}{{end}}";
        let network = docker(&["inspect", "--format", format, &self.id]).await?;
        docker(&["network", "disconnect", "--force", &network, &self.id]).await?;
        Ok(Guard::new(["network", "connect", &network, &self.id]))
    }

    /// Runs a program inside the container and returns what it prints.
    ///
    /// # Errors
    /// When the program fails.
    pub async fn exec(&self, command: &[&str]) -> Result<String> {
        docker(&[&["exec", &self.id], command].concat()).await
    }

    /// Waits until the server answers.
    pub(super) async fn wait(&self) -> Result<()> {
        if probe::wait(&self.url, START_TIMEOUT).await {
            return Ok(());
        }
        let log = docker(&["logs", "--tail", "20", &self.id]).await?;
        Err(failed(format!(
            "the server in the container does not answer:\n{log}"
        )))
    }

    /// Leaves the container to the end of the run.
    pub(super) fn leave(self) -> String {
        std::mem::forget(self.inner);
        self.url
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Repairs what was broken when it is dropped.
#[derive(Debug)]
#[must_use = "the fault ends when the guard is dropped"]
pub struct Guard {
    repair: Vec<String>,
}

impl Guard {
    fn new<'a>(repair: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            repair: repair.into_iter().map(str::to_owned).collect(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let repair: Vec<_> = self.repair.iter().map(String::as_str).collect();
        if let Err(error) = docker_now(&repair) {
            eprintln!("sessionkit test servers: {error}");
        }
    }
}

fn on_loopback(port: u16) -> PortBinding {
    PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(port.to_string()),
    }
}

/// Ports that nobody listens on. A chosen one stays the same when a container starts again, unless
/// somebody has taken it meanwhile: so they are below those that systems give to outgoing connections.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut seed = [0; 8];
    OsEntropy.fill(&mut seed)?;
    let random = Random::new(u64::from_le_bytes(seed));
    let mut listeners = Vec::new();
    for _ in 0..MAX_TRIES {
        if listeners.len() == count {
            break;
        }
        let port = FIRST_PORT + random.below(PORTS) as u16;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    let ports = listeners.iter().map(TcpListener::local_addr);
    let ports: Vec<_> = ports
        .filter_map(|address| Some(address.ok()?.port()))
        .collect();
    match ports.len() == count {
        true => Ok(ports),
        false => Err(failed("no free port")),
    }
}
