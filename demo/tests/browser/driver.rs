//! The few commands of W3C WebDriver that the tests need.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const HELP: &str = "the browser tests need Chromium and its driver: \
                    apt-get install chromium chromium-driver";

/// How long a page may take to load, also on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A headless Chromium.
#[derive(Debug)]
pub(crate) struct Browser {
    client: Client<HttpConnector, Full<Bytes>>,
    session: String,
    _driver: Child,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut driver = driver.unwrap_or_else(|error| panic!("{HELP} ({error})"));
        let port = port(&mut driver).await;
        let mut browser = Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
        };
        // Chromium has no sandbox for root, which is who runs tests in a container.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP *.site.localhost 127.0.0.1",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.command(Method::POST, "", wanted).await;
        let session = session["sessionId"].as_str().expect(HELP);
        browser.session = format!("{}/{session}", browser.session);
        browser
    }

    /// Closes the browser, which the end of its driver alone would leave running.
    pub(crate) async fn quit(&self) {
        self.command(Method::DELETE, "", Value::Null).await;
    }

    pub(crate) async fn go(&self, url: &str) {
        self.command(Method::POST, "/url", json!({"url": url}))
            .await;
    }

    pub(crate) async fn reload(&self) {
        self.command(Method::POST, "/refresh", json!({})).await;
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height});
        self.command(Method::POST, "/window/rect", size).await;
    }

    /// The texts of all elements that match a CSS selector.
    pub(crate) async fn texts(&self, css: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for element in self.find(css).await {
            let text = self.get(&format!("/element/{element}/text")).await;
            texts.push(text.as_str().unwrap().to_owned());
        }
        texts
    }

    /// The text of the element that matches.
    pub(crate) async fn text(&self, css: &str) -> String {
        let [text] = &self.texts(css).await[..] else {
            panic!("one element matches {css}");
        };
        text.clone()
    }

    pub(crate) async fn attribute(&self, css: &str, name: &str) -> String {
        let element = self.element(css).await;
        let value = self
            .get(&format!("/element/{element}/attribute/{name}"))
            .await;
        value.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn style(&self, css: &str, property: &str) -> String {
        let element = self.element(css).await;
        let value = self
            .get(&format!("/element/{element}/css/{property}"))
            .await;
        value.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn click(&self, css: &str) {
        let path = format!("/element/{}/click", self.element(css).await);
        self.command(Method::POST, &path, json!({})).await;
    }

    /// Clicks on what leads to another page, and waits until that is loaded: a driver may answer
    /// before the browser has begun to leave.
    pub(crate) async fn follow(&self, css: &str) {
        const LOADED: &str = "return !window.left && document.readyState === 'complete'";
        self.script("window.left = true").await;
        self.click(css).await;
        let loaded = json!({"script": LOADED, "args": []});
        let arrival = async {
            // While one page gives way to another there may be none to ask.
            while self
                .try_command(Method::POST, "/execute/sync", loaded.clone())
                .await
                != Ok(Value::Bool(true))
            {
                tokio::task::yield_now().await;
            }
        };
        let arrived = tokio::time::timeout(PATIENCE, arrival).await;
        arrived.unwrap_or_else(|_| panic!("{css} leads nowhere"));
    }

    pub(crate) async fn write(&self, css: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(css).await);
        self.command(Method::POST, &path, json!({"text": text}))
            .await;
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        let script = json!({"script": script, "args": []});
        self.command(Method::POST, "/execute/sync", script).await
    }

    /// The cookie of this name, as the browser keeps it.
    pub(crate) async fn cookie(&self, name: &str) -> Option<Value> {
        let cookies = self.get("/cookie").await;
        let mut cookies = cookies.as_array().unwrap().iter();
        cookies.find(|cookie| cookie["name"] == name).cloned()
    }

    /// How many cookies of this name the browser would send to the page that it shows.
    pub(crate) async fn count_cookies(&self, name: &str) -> usize {
        let cookies = self.get("/cookie").await;
        let cookies = cookies.as_array().unwrap().iter();
        cookies.filter(|cookie| cookie["name"] == name).count()
    }

    /// What the browser has complained about since this was asked last: refused scripts and styles,
    /// files that are missing.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = json!({"type": "browser"});
        let log = self.command(Method::POST, "/se/log", log).await;
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// For people to look at.
    pub(crate) async fn screenshot(&self, name: &str) {
        let image = self.get("/screenshot").await;
        let image = STANDARD.decode(image.as_str().unwrap()).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(path, image).unwrap();
    }

    async fn element(&self, css: &str) -> String {
        let [element] = &self.find(css).await[..] else {
            panic!("one element matches {css}");
        };
        element.clone()
    }

    async fn find(&self, css: &str) -> Vec<String> {
        let wanted = json!({"using": "css selector", "value": css});
        let found = self.command(Method::POST, "/elements", wanted).await;
        let found = found.as_array().unwrap().iter();
        found
            .map(|element| element[ELEMENT].as_str().unwrap().to_owned())
            .collect()
    }

    async fn get(&self, path: &str) -> Value {
        self.command(Method::GET, path, Value::Null).await
    }

    async fn command(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.try_command(method, path, body).await;
        answer.unwrap_or_else(|message| panic!("{path}: {message}"))
    }

    async fn try_command(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.session))
            .header("content-type", "application/json");
        let request = request.body(Full::from(body)).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        if !status.is_success() {
            return Err(answer["value"]["message"].to_string());
        }
        Ok(answer["value"].clone())
    }
}

/// The port that the driver has chosen, which it prints.
async fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            // What it prints later is read, so that it never waits for us.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return port.trim_end_matches('.').parse().unwrap();
        }
    }
    panic!("the driver of the browser has not started: {HELP}");
}
