//! Server-sent events, as far as Latlas uses them: the data of each event, in order.

/// Cuts a stream of bytes into events.
///
/// Follows the parsing rules of the HTML standard, section 9.2.6, for `data` fields; event names,
/// ids and comments, which keep the connection alive, are passed over.
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Option<String>,
    after_return: bool,
}

impl Events {
    /// Takes bytes as they arrive, and gives the data of the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for &byte in bytes {
            let second_half = byte == b'\n' && std::mem::take(&mut self.after_return);
            self.after_return = byte == b'\r';
            match byte {
                // The line ended with the carriage return before it.
                _ if second_half => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_of_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take();
        }
        let line = String::from_utf8_lossy(&line);
        let value = match line.split_once(':') {
            Some(("data", value)) => value.strip_prefix(' ').unwrap_or(value),
            None if line == "data" => "",
            _ => return None,
        };
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: status\ndata: {\"done\": 1}\nid: 7\n\ndata:a\ndata: b\r\n\r\n\
                          retry: 5\n\ndata\n\ndata: never ended";

    #[test]
    fn events_are_cut_wherever_the_bytes_are() {
        let expected = ["{\"done\": 1}", "a\nb", ""];
        assert_eq!(Events::default().push(STREAM.as_bytes()), expected);
        for size in 1..STREAM.len() {
            let mut events = Events::default();
            let all: Vec<String> =
                STREAM.as_bytes().chunks(size).flat_map(|bytes| events.push(bytes)).collect();
            assert_eq!(all, expected, "in pieces of {size}");
        }
    }
}
