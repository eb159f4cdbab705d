//! What the client makes of the answers that a coordinator, or something else at its address, gives.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use latlas_client::{Client, ClientError, with_query};
use serde_json::{Value, json};

const PROBLEM: &str = r#"{"type": "/problems/unknown-hardware", "title": "Unknown hardware",
    "status": 404, "detail": "no agent of class x.cpu has enrolled"}"#;

/// Gives the answers in turn, one a connection; the heads of the requests arrive at the receiver.
fn server(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (heads, received) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            heads.send(head + &String::from_utf8(body).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, received)
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn client(address: &str) -> Client {
    Client::new(address, Some("secret-token".to_owned())).unwrap()
}

async fn outcome(answer: String) -> Result<Value, ClientError> {
    let (address, _received) = server(vec![answer]);
    client(&address).get("v1/tables").await
}

#[tokio::test]
async fn an_answer_is_read() {
    let (address, received) = server(vec![answer("200 OK", "[1, 2]")]);
    let numbers: Vec<u32> = client(&address).get("v1/tables").await.unwrap();
    assert_eq!(numbers, [1, 2]);
    let head = received.recv().unwrap();
    assert!(head.starts_with("GET /v1/tables HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer secret-token\r\n"), "{head}");
}

#[tokio::test]
async fn a_body_is_sent_as_json() {
    let (address, received) = server(vec![answer("201 Created", "{\"id\": 1}")]);
    let client = Client::new(&format!("{address}/farm"), None).unwrap();
    let value: Value = client.post("v1/ops", &json!({"name": "X"})).await.unwrap();
    assert_eq!(value["id"], 1);
    let request = received.recv().unwrap();
    assert!(request.starts_with("POST /farm/v1/ops HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
    assert!(request.ends_with("{\"name\":\"X\"}"), "{request}");
}

#[tokio::test]
async fn an_answer_without_a_body_is_nothing() {
    let (address, _received) = server(vec![answer("204 No Content", ""), answer("200 OK", "")]);
    let client = client(&address);
    let () = client.post("v1/leases/1/release", &json!({})).await.unwrap();
    let error = client.get::<Vec<u32>>("v1/tables").await.unwrap_err();
    assert!(error.to_string().contains("is empty; a list should stand here"), "{error}");
}

#[tokio::test]
async fn a_refusal_says_what_the_coordinator_said() {
    let error = outcome(answer("404 Not Found", PROBLEM)).await.unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        "the coordinator refused: no agent of class x.cpu has enrolled (Unknown hardware)"
    );
}

#[tokio::test]
async fn a_server_in_trouble_may_recover() {
    let busy = PROBLEM.replace("404", "503");
    let error = outcome(answer("503 Service Unavailable", &busy)).await.unwrap_err();
    assert!(error.is_transient() && error.status() == Some(503));
    let error = outcome(answer("502 Bad Gateway", "<html>nginx</html>")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("does not answer (status 502 Bad Gateway)"), "{error}");
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let asks = |status: &str, after: &str, body: &str| {
        answer(status, body).replacen("\r\n", &format!("\r\nretry-after: {after}\r\n"), 1)
    };
    let problem = PROBLEM.replace("404", "429");
    for (answer, seconds) in [
        (asks("429 Too Many Requests", "7", &problem), 7),
        (asks("503 Service Unavailable", "120", "<html>a proxy</html>"), 120),
        (asks("429 Too Many Requests", "Wed, 21 Oct 2015 07:28:00 GMT", &problem), 0),
    ] {
        let error = outcome(answer).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(seconds)));
        assert!(error.to_string().contains(&format!("in {seconds} s")), "{error}");
    }
    let error = outcome(asks("404 Not Found", "7", PROBLEM)).await.unwrap_err();
    assert!(!error.is_transient() && error.retry_after().is_none(), "only load asks for a wait");
}

#[tokio::test]
async fn something_else_at_the_address_is_told_apart() {
    for (status, body, cause) in [
        ("200 OK", "<html>a router's page</html>", "it is not JSON"),
        ("404 Not Found", "<html>not here</html>", "status 404 Not Found"),
        ("401 Unauthorized", "{\"error\": \"who are you\"}", "status 401 Unauthorized"),
    ] {
        let error = outcome(answer(status, body)).await.unwrap_err();
        assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error:?}");
        assert!(error.to_string().contains(cause), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let whole = answer("200 OK", "[1, 2, 3, 4, 5, 6, 7, 8, 9]");
    let error = outcome(whole[..whole.len() - 6].to_owned()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_said_with_the_remedy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&address).get::<Value>("v1/tables").await.unwrap_err();
    assert!(error.is_transient());
    let text = error.to_string();
    let start = format!("the coordinator at {address} does not answer (Connection refused");
    assert!(text.starts_with(&start), "{text}");
    assert!(
        text.contains("latlas-coordinator serve") && text.contains("LATLAS_COORDINATOR"),
        "{text}"
    );
}

#[test]
fn what_is_no_address_is_refused() {
    for base in ["", "127.0.0.1:8700", "ftp://host", "http://", "file:///etc", "a b"] {
        let error = Client::new(base, None).unwrap_err();
        assert!(matches!(&error, ClientError::Address(a) if a == base), "{base}: {error:?}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_refused_and_not_repeated() {
    for token in ["", "two words", "line\n", "caf\u{e9}"] {
        let client = Client::new("http://127.0.0.1:1", Some(token.to_owned())).unwrap();
        let error = client.get::<Value>("v1/tables").await.unwrap_err();
        assert!(matches!(error, ClientError::Token), "{error:?}");
        assert!(token.is_empty() || !error.to_string().contains(token));
    }
}

#[test]
fn a_client_in_a_log_keeps_its_secrets() {
    let client = Client::new("http://me:hidden@127.0.0.1:1", Some("secret".to_owned())).unwrap();
    assert_eq!(format!("{client:?}"), "Client { base: \"http://127.0.0.1:1\", .. }");
}

#[tokio::test]
async fn pages_are_read_to_the_last() {
    let (address, received) = server(vec![
        answer("200 OK", "{\"items\": [1, 2], \"next_cursor\": \"a&b\"}"),
        answer("200 OK", "{\"items\": [3], \"next_cursor\": null}"),
    ]);
    assert_eq!(client(&address).get_all::<u32>("v1/tables").await.unwrap(), [1, 2, 3]);
    assert!(received.recv().unwrap().starts_with("GET /v1/tables HTTP"));
    assert!(received.recv().unwrap().starts_with("GET /v1/tables?cursor=a%26b HTTP"));
}

#[tokio::test]
async fn pages_without_end_are_an_error() {
    let page = answer("200 OK", "{\"items\": [1], \"next_cursor\": \"a\"}");
    let (address, _received) = server(vec![page.clone(), page]);
    let error = client(&address).get_all::<u32>("v1/tables").await.unwrap_err();
    assert!(error.to_string().contains("its pages have no end"), "{error}");
}

#[test]
fn queries_are_encoded() {
    assert_eq!(with_query("v1/tables", &[]), "v1/tables");
    assert_eq!(with_query("v1/x", &[("a", "1 2"), ("b", "&=")]), "v1/x?a=1+2&b=%26%3D");
    assert_eq!(with_query("v1/x?a=1", &[("b", "2")]), "v1/x?a=1&b=2");
}
