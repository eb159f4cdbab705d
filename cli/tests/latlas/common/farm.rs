//! A coordinator that says what it was told to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Answers by method and path with query; several answers of one path are given in turn, and the last
/// of them again and again.
pub struct Farm {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Farm {
    pub fn new(answers: &[(&str, &str, &str)]) -> Farm {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let mut answers: Vec<(String, String, String)> =
            answers.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let request = read(&stream);
                let path = request.split(" HTTP/1.1").next().unwrap_or_default().to_owned();
                seen.lock().unwrap().push(request);
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
        Farm { address, requests }
    }

    /// What was asked, each with its head and body.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Method and path of what was asked.
    pub fn paths(&self) -> Vec<String> {
        let path = |r: &String| r.split(" HTTP/1.1").next().unwrap_or_default().to_owned();
        self.requests().iter().map(path).collect()
    }
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
