use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cookie::{Cookie, time::Duration};
use http::{HeaderMap, Method, Request, StatusCode, header::SET_COOKIE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

/// A browser without a screen: it keeps cookies, and sends them back. Clones share the jar.
#[derive(Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    jar: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The `Set-Cookie` headers.
    pub(crate) fn cookies(&self) -> Vec<&str> {
        let values = self.headers.get_all(SET_COOKIE).into_iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }

    /// The whole of a header that may come in several lines.
    pub(crate) fn joined(&self, name: &str) -> String {
        let values = self.headers.get_all(name).into_iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
        values.join(", ")
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
            address,
            jar: Arc::default(),
        }
    }

    /// Another browser for the same server.
    pub(crate) fn stranger(&self) -> Self {
        Self {
            jar: Arc::default(),
            ..self.clone()
        }
    }

    /// A copy that goes its own way from here on: somebody has stolen the cookies.
    pub(crate) fn copy(&self) -> Self {
        let jar = self.jar.lock().unwrap().clone();
        Self {
            jar: Arc::new(Mutex::new(jar)),
            ..self.clone()
        }
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.jar.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn put_cookie(&self, name: &str, value: &str) {
        let mut jar = self.jar.lock().unwrap();
        jar.insert(name.to_owned(), value.to_owned());
    }

    /// As text.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", "text/plain")], "")
            .await
    }

    /// As a page.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        self.send(Method::GET, path, &[("accept", accept)], "")
            .await
    }

    /// As a script.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let marked = [("x-requested-with", "test")];
        self.send(Method::POST, path, &marked, body).await
    }

    /// As a script.
    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        let marked = [("x-requested-with", "test")];
        self.send(Method::PUT, path, &marked, body).await
    }

    /// As a form of the app's own pages.
    pub(crate) async fn submit(&self, path: &str, fields: &str) -> Answer {
        let headers = [
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
        ];
        self.send(Method::POST, path, &headers, fields).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookies) = self.cookie_header() {
            request = request.header("cookie", cookies);
        }
        let body = Full::from(body.to_owned());
        let response = self
            .http
            .request(request.body(body).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        };
        self.keep(&answer);
        answer
    }

    fn cookie_header(&self) -> Option<String> {
        let jar = self.jar.lock().unwrap();
        let pairs: Vec<_> = jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep(&self, answer: &Answer) {
        let mut jar = self.jar.lock().unwrap();
        for cookie in answer.cookies() {
            let cookie = Cookie::parse(cookie).unwrap();
            if cookie.max_age() == Some(Duration::ZERO) {
                jar.remove(cookie.name());
            } else {
                jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
    }
}
