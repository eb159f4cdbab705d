//! Lines of a stream, one at a time, in bounded memory.

use std::io::{self, BufRead, BufReader, Read};

/// The longest line, in bytes. A longer line is an error; no network needs as many.
pub(crate) const MAX_LINE: usize = 16 << 20;

/// Why a line is not text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the line has more than {limit} bytes")]
    TooLong { limit: usize },
    /// `place` counts the bytes of the line from 1.
    #[error("byte {place} of the line, {byte:#04x}, is not UTF-8; save the file as UTF-8")]
    NotUtf8 { place: usize, byte: u8 },
}

/// Reads lines of any length and content.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Number of bytes of the line as read; at most `limit` of them are kept.
    length: usize,
    limit: usize,
    number: usize,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R) -> Lines<R> {
        Lines::with_limit(reader, MAX_LINE)
    }

    fn with_limit(reader: R, limit: usize) -> Lines<R> {
        let reader = BufReader::with_capacity(1 << 16, reader);
        Lines { reader, line: Vec::new(), length: 0, limit, number: 0 }
    }

    /// Whether the next line has not arrived yet. In that case earlier answers are flushed, since the writer of the
    /// lines may wait for them.
    pub(crate) fn would_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// The next line's number, counted from 1, and its text without the line end, or the reason why it is not text.
    /// None at the end.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(usize, Result<&str, LineError>)>> {
        self.line.clear();
        self.length = 0;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                if self.length == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = chunk.iter().position(|&b| b == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = self.limit.saturating_sub(self.line.len());
            self.line.extend_from_slice(&chunk[..taken.min(room)]);
            self.length += taken;
            self.reader.consume(taken);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        Ok(Some((self.number, self.text())))
    }

    /// The line that was read last.
    pub(crate) fn text(&self) -> Result<&str, LineError> {
        if self.length > self.limit {
            return Err(LineError::TooLong { limit: self.limit });
        }
        text(&self.line, self.limit)
    }

    /// The line that was read last and all that follows, as text.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub(crate) fn rest(mut self) -> io::Result<Vec<u8>> {
        let mut all = self.line;
        self.reader.read_to_end(&mut all)?;
        Ok(all)
    }
}

/// A line as text without its end, or the reason why it is not text.
pub(crate) fn text(line: &[u8], limit: usize) -> Result<&str, LineError> {
    if line.len() > limit {
        return Err(LineError::TooLong { limit });
    }
    let text = str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        LineError::NotUtf8 { place: at + 1, byte: line[at] }
    })?;
    Ok(text.trim_end_matches(['\n', '\r']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<(usize, Result<String, LineError>)> {
        let mut lines = Lines::with_limit(bytes, 12);
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            all.push((number, line.map(str::to_owned)));
        }
        all
    }

    #[test]
    fn lines_are_numbered_and_lose_their_ends() {
        let all = read(b"one\r\n\nthree");
        let expected =
            [(1, Ok("one".to_owned())), (2, Ok(String::new())), (3, Ok("three".to_owned()))];
        assert_eq!(all, expected);
        assert_eq!(read(b""), []);
    }

    #[test]
    fn lines_that_are_no_text_do_not_stop_the_rest() {
        let all = read(b"a\xffb\nthis line is too long\nlast\n");
        let expected = [
            (1, Err(LineError::NotUtf8 { place: 2, byte: 0xff })),
            (2, Err(LineError::TooLong { limit: 12 })),
            (3, Ok("last".to_owned())),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn the_rest_includes_the_line_that_was_looked_at() {
        let mut lines = Lines::new(&b"input: {}\nlayers: []\n"[..]);
        lines.next().unwrap();
        assert_eq!(lines.rest().unwrap(), b"input: {}\nlayers: []\n");
    }
}
