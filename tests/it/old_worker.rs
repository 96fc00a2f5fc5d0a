//! A worker of an earlier release, as the coordinator hears it: texts over HTTP, written and read by nothing of today's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

/// One that has registered.
pub(crate) struct OldWorker {
    address: String,
    id: String,
}

impl OldWorker {
    /// Registers at the coordinator with these capabilities.
    pub(crate) fn register(address: &str, capabilities: &Value) -> Self {
        let answer = post(address, "/v1/workers", capabilities);
        Self { address: address.to_owned(), id: answer["worker"].as_str().expect("the worker's id").to_owned() }
    }

    /// Asks for one item of any kind, for half a second.
    pub(crate) fn claim(&self) -> Option<Value> {
        let kinds = ["build", "measure", "link", "rehearse", "profile"];
        let request = json!({"kinds": kinds, "max": 1, "wait_ms": 500});
        let mut answer = post(&self.address, &format!("/v1/workers/{}/claim", self.id), &request);
        answer["leases"].as_array_mut().expect("a list of leases").pop()
    }

    /// Ends a lease with a result.
    pub(crate) fn report(&self, lease: &Value, result: &Value) {
        let report = json!({"worker": self.id, "generation": lease["generation"], "run_ms": 1, "result": {"Ok": result}});
        post(&self.address, &format!("/v1/items/{}/report", lease["item"].as_str().expect("a key")), &report);
    }
}

/// Sends JSON; gives the answer, which must be one of success.
fn post(address: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("a coordinator that listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a coordinator that listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let (head, content) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_ascii_lowercase().contains("chunked"), "{path}: {answer}");
    serde_json::from_str(content).unwrap_or_else(|e| panic!("{path}: {e} in {answer}"))
}
