//! Chance that is the same in every run.

use crate::Work;

/// xorshift64: the same seed, which is not 0, gives the same numbers.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Numbers that `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// One of `some`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        let at = self.below(some.len() as u64);
        &some[usize::try_from(at).unwrap()]
    }
}

impl Work {
    /// A maintainer's change, called `number`: a commit of so many lines, and perhaps a tag, a branch, or history
    /// rewritten.
    pub fn change(&self, number: usize, lines: usize, chance: &mut Chance) {
        match chance.below(4) {
            0 => self.tag(&format!("v{number}")),
            1 => {
                self.branch(&format!("topic-{number}"));
                self.switch("main");
            }
            2 => {
                self.commit("file", &format!("{number} before it is rewritten\n"));
                self.rewind(1);
            }
            _ => {}
        }
        self.commit("file", &format!("{number}\n").repeat(lines));
    }
}
