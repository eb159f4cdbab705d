//! The input as blocks of whole lines, and generated genotypes as an input.

use std::io::{self, Read};
use std::sync::Arc;

use ops_catalog::arch_space::CompiledSpace;

/// The size of a full block in bytes.
const BLOCK: usize = 1 << 17;

/// Whole lines of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The number of its first line, counted from 1.
    pub(super) first_line: usize,
    /// The number of its lines.
    pub(super) lines: usize,
    /// The lines with their ends; the last line of the input may have none. A line of more than the limit of bytes is cut
    /// to one byte more than the limit.
    pub(super) bytes: Vec<u8>,
}

/// Reads blocks. What has arrived is not kept waiting for a full block, as its writer may wait for the answers.
pub(super) struct Blocks<R> {
    reader: R,
    /// The longest line in bytes.
    limit: usize,
    /// The beginning of a line.
    rest: Vec<u8>,
    next_line: usize,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(reader: R, limit: usize) -> Blocks<R> {
        Blocks { reader, limit, rest: Vec::new(), next_line: 1, ended: false }
    }

    /// The next block; none at the end.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Block>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut buffer = vec![0; BLOCK];
        while !self.ended {
            let read = match self.reader.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.ended = read == 0;
            let read = &buffer[..read];
            let Some(end) = read.iter().rposition(|&b| b == b'\n') else {
                // The limit and one byte more are kept of a line, so that it is known to be too long.
                let room = (self.limit + 1).saturating_sub(bytes.len());
                bytes.extend_from_slice(&read[..read.len().min(room)]);
                continue;
            };
            let first = read.iter().position(|&b| b == b'\n').unwrap_or(end);
            let room = (self.limit + 1).saturating_sub(bytes.len());
            bytes.extend_from_slice(&read[..first.min(room)]);
            bytes.extend_from_slice(&read[first..=end]);
            self.rest.extend_from_slice(&read[end + 1..]);
            break;
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let ends = bytes.iter().filter(|&&b| b == b'\n').count();
        let lines = ends + usize::from(bytes.last() != Some(&b'\n'));
        let first_line = self.next_line;
        self.next_line += lines;
        Ok(Some(Block { first_line, lines, bytes }))
    }
}

/// The lines of a block, without their ends.
pub(super) fn lines(block: &Block) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = block.bytes.strip_suffix(b"\n").unwrap_or(&block.bytes);
    (block.first_line..).zip(bytes.split(|&b| b == b'\n'))
}

/// Genotypes of a space as an input, one a line.
pub(super) struct Generated<N> {
    /// The next genotype's letters; none at the end.
    next: N,
    /// Lines that are not read yet.
    pending: Vec<u8>,
    read: usize,
}

/// Random genotypes of a space. Each has a generator of its own, so the first ones do not depend on their number.
pub(super) fn drawn(
    space: Arc<CompiledSpace>,
    count: u64,
    seed: u64,
) -> Generated<impl FnMut() -> Option<Vec<u8>>> {
    let mut seeds = fastrand::Rng::with_seed(seed);
    let mut left = count;
    Generated::new(move || {
        left = left.checked_sub(1)?;
        Some(space.draw(&mut seeds.fork()))
    })
}

/// Every genotype of a space.
pub(super) fn every(space: Arc<CompiledSpace>) -> Generated<impl FnMut() -> Option<Vec<u8>>> {
    let mut next = space.at(0);
    Generated::new(move || {
        let letters = next.clone()?;
        if !next.as_mut().is_some_and(|letters| space.next(letters)) {
            next = None;
        }
        Some(letters)
    })
}

impl<N: FnMut() -> Option<Vec<u8>>> Generated<N> {
    fn new(next: N) -> Generated<N> {
        Generated { next, pending: Vec::new(), read: 0 }
    }
}

impl<N: FnMut() -> Option<Vec<u8>>> Read for Generated<N> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.pending.len() {
            self.pending.clear();
            self.read = 0;
            while self.pending.len() < BLOCK {
                let Some(letters) = (self.next)() else { break };
                self.pending.extend_from_slice(&letters);
                self.pending.push(b'\n');
            }
        }
        let ready = &self.pending[self.read..];
        let taken = ready.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&ready[..taken]);
        self.read += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ops_catalog::arch_space::builtin_spaces;
    use proptest::prelude::*;

    /// Returns what it has in pieces of these sizes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let taken = self.0.len().min(self.1).min(buffer.len());
            buffer[..taken].copy_from_slice(&self.0[..taken]);
            self.0 = &self.0[taken..];
            Ok(taken)
        }
    }

    fn read(text: &[u8], piece: usize, limit: usize) -> Vec<(usize, Vec<u8>)> {
        let mut blocks = Blocks::new(Pieces(text, piece), limit);
        let mut all = Vec::new();
        while let Some(block) = blocks.next().unwrap() {
            let found: Vec<_> =
                lines(&block).map(|(number, line)| (number, line.to_vec())).collect();
            assert_eq!(found.len(), block.lines);
            all.extend(found);
        }
        all
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let lines = read(b"0123456789\nab\n0123456789", 4, 5);
        let expected = [(1, b"012345".to_vec()), (2, b"ab".to_vec()), (3, b"012345".to_vec())];
        assert_eq!(lines, expected);
    }

    proptest! {
        /// Pieces of any size give the same lines.
        #[test]
        fn blocks_have_all_lines(text in "[ab\n]{0,60}", piece in 1usize..20) {
            let mut expected: Vec<&str> = text.split('\n').collect();
            if expected.last() == Some(&"") {
                expected.pop();
            }
            let found = read(text.as_bytes(), piece, 100);
            let texts: Vec<&str> = found.iter().map(|(_, line)| std::str::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(texts, expected);
            prop_assert!(found.iter().map(|(number, _)| *number).eq(1..=found.len()));
        }
    }

    #[test]
    fn all_genotypes_of_a_space_are_listed_and_some_are_drawn() {
        let builtin = builtin_spaces().find(|space| space.name == "nas_bench_macro").unwrap();
        let space = Arc::new(builtin.compile());
        let mut text = String::new();
        every(Arc::clone(&space)).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 6_561);
        let mut random = String::new();
        drawn(Arc::clone(&space), 10_000, 7).read_to_string(&mut random).unwrap();
        assert_eq!(random.lines().count(), 10_000);
        let expected: Vec<Vec<u8>> = space.draws(7).take(10_000).collect();
        assert!(random.lines().map(str::as_bytes).eq(expected.iter().map(Vec::as_slice)));
    }
}
