//! The genotypes of a space as a list: by number, one after the other, and at random.

use fastrand::Rng;

use super::run::INACTIVE;
use super::space::{CompiledSpace, letter_of};
use super::tables::{END, NONE, row};

impl CompiledSpace {
    /// The letters of a genotype by its number, in alphabetical order (`0` to `9`, `a` to `z`, `.`). None if there are
    /// fewer, or more than 2^128.
    pub fn at(&self, number: u128) -> Option<Vec<u8>> {
        if number >= self.size() || self.size() == u128::MAX {
            return None;
        }
        let mut left = number;
        self.letters_by(|space, first, width| {
            (first..first + width).find(|&at| {
                let ways = space.tables.ways[at];
                let here = left < ways;
                left -= if here { 0 } else { ways };
                here
            })
        })
    }

    /// The letters of a random genotype. Every genotype is equally likely.
    pub fn draw(&self, rng: &mut Rng) -> Vec<u8> {
        let drawn = self.letters_by(|space, first, width| {
            let chance = rng.u64(..);
            let possible = |at: &usize| space.tables.transitions[*at].next != NONE;
            (first..first + width).filter(possible).find(|&at| chance <= space.chances[at])
        });
        drawn.expect("a space has a genotype, and each state before its last gene leads to one")
    }

    /// An endless sequence of random genotypes. Each depends only on the seed and its index.
    pub fn draws(&self, seed: u64) -> impl Iterator<Item = Vec<u8>> {
        let mut seeds = Rng::with_seed(seed);
        std::iter::repeat_with(move || self.draw(&mut seeds.fork()))
    }

    /// Chooses a transition in each state.
    fn letters_by(
        &self,
        mut choose: impl FnMut(&Self, usize, usize) -> Option<usize>,
    ) -> Option<Vec<u8>> {
        let mut letters = Vec::with_capacity(self.program.genes.len());
        let mut state = 0;
        for (gene, def) in self.program.genes.iter().enumerate() {
            let width = row(&self.program, gene) as usize;
            let at = choose(self, state, width)?;
            letters.push(self.letter(at - state, def.options.len()));
            state = self.tables.transitions[at].next as usize;
        }
        Some(letters)
    }

    fn letter(&self, column: usize, options: usize) -> u8 {
        match column < options {
            true => letter_of(u8::try_from(column).unwrap_or(INACTIVE)),
            false => letter_of(INACTIVE),
        }
    }

    /// Replaces the letters of a genotype by those of the next one; false after the last one, and for letters that are
    /// not those of a network.
    pub fn next(&self, letters: &mut [u8]) -> bool {
        let mut states = Vec::with_capacity(letters.len() + 1);
        let (_, mut state) = self.start();
        for (gene, &letter) in letters.iter().enumerate() {
            states.push(state);
            match self.step(gene, state, letter) {
                Some((_, next)) => state = next,
                None => return false,
            }
        }
        for gene in (0..letters.len()).rev() {
            let options = self.program.genes[gene].options.len();
            let width = row(&self.program, gene) as usize;
            let column = match letters[gene] {
                super::INACTIVE_LETTER => options,
                letter => usize::from(super::space::option_of(letter).unwrap_or(INACTIVE)),
            };
            let first = states[gene].number();
            let later = first + column + 1..first + width;
            let Some(at) = later.into_iter().find(|&at| self.tables.transitions[at].next != NONE)
            else {
                continue;
            };
            letters[gene] = self.letter(at - first, options);
            self.first_after(self.tables.transitions[at].next, gene + 1, letters);
            return true;
        }
        false
    }

    /// The first letters from a state on.
    fn first_after(&self, mut state: u32, from: usize, letters: &mut [u8]) {
        for (gene, letter) in letters.iter_mut().enumerate().skip(from) {
            if state == END {
                return;
            }
            let width = row(&self.program, gene) as usize;
            let first = state as usize;
            let possible = |at: &usize| self.tables.transitions[*at].next != NONE;
            let Some(at) = (first..first + width).find(possible) else { return };
            *letter = self.letter(at - first, self.program.genes[gene].options.len());
            state = self.tables.transitions[at].next;
        }
    }
}
