//! A coordinator that says what it was told to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Answers by method and path with query; several answers of one path are given in turn, and the last
/// of them again and again.
pub struct FakeCoordinator {
    pub address: String,
    requests: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl FakeCoordinator {
    pub fn new(answers: &[(&str, &str, &str)]) -> FakeCoordinator {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let seen = Arc::clone(&requests);
        let mut answers: Vec<(String, String, String)> =
            answers.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let request = read(&stream);
                let path = path(&request).to_owned();
                seen.0.lock().unwrap().push(request);
                seen.1.notify_all();
                let mut fitting = answers.iter().enumerate().filter(|(_, (p, ..))| *p == path);
                let answer = match (fitting.next(), fitting.next()) {
                    (None, _) => problem(404, &format!("nothing was said about {path}")),
                    (Some((_, (_, status, body))), None) => answer(status, body),
                    (Some((index, _)), Some(_)) => {
                        let (_, status, body) = answers.remove(index);
                        answer(&status, &body)
                    }
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        FakeCoordinator { address, requests }
    }

    /// What was asked, each with its head and body.
    pub fn requests(&self) -> Vec<String> {
        self.requests.0.lock().unwrap().clone()
    }

    /// Method and path of what was asked.
    pub fn paths(&self) -> Vec<String> {
        self.requests().iter().map(|request| path(request).to_owned()).collect()
    }

    /// Waits until a method and path were asked for so many times.
    pub fn await_requests(&self, wanted: &str, times: usize) {
        let (requests, arrived) = &*self.requests;
        let asked =
            |all: &Vec<String>| all.iter().filter(|request| path(request) == wanted).count();
        drop(arrived.wait_while(requests.lock().unwrap(), |all| asked(all) < times).unwrap());
    }
}

/// Method and path of a request.
fn path(request: &str) -> &str {
    request.split(" HTTP/1.1").next().unwrap_or_default()
}

fn read(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    let status = if status == "200" { "200 OK" } else { status };
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn problem(status: u16, detail: &str) -> String {
    answer(&format!("{status} No"), &problem_json(status, detail))
}

/// The body of a refusal.
pub fn problem_json(status: u16, detail: &str) -> String {
    format!(
        r#"{{"type": "/problems/x", "title": "Refused", "status": {status}, "detail": "{detail}"}}"#
    )
}
