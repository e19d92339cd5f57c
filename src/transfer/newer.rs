//! Word that something newer was signed, for whoever is at work on what is older.
//!
//! What is at work is not broken off by it. It begins nothing more, and what it leaves is for the job that is begun for
//! the newer word.

use std::{collections::HashMap, future::pending};

use tokio::sync::watch;

/// How a mirror ends whose walk left off.
pub(crate) const OVERTAKEN: &str = "something newer was signed meanwhile, and comes first";

/// How often something newer was heard of each family of repositories (all with one identifier); one for all work of a
/// program.
#[derive(Debug, Default)]
pub struct Word(watch::Sender<HashMap<String, u64>>);

impl Word {
    /// Something newer was signed for these families, and is stored.
    pub fn spread<'a>(&self, families: impl IntoIterator<Item = &'a str>) {
        self.0.send_modify(|heard| {
            for family in families {
                *heard.entry(family.to_owned()).or_default() += 1;
            }
        });
    }

    /// What has been heard until now, for who is about to read the store.
    #[must_use]
    pub fn as_of_now(&self) -> AsOf {
        let heard = self.0.subscribe();
        let known = heard.borrow().clone();
        AsOf { heard, known }
    }
}

/// What had been heard at some moment.
#[derive(Clone, Debug)]
pub struct AsOf {
    heard: watch::Receiver<HashMap<String, u64>>,
    known: HashMap<String, u64>,
}

impl AsOf {
    /// What one family's work is to heed.
    #[must_use]
    pub fn of(&self, family: &str) -> Newer {
        let known = self.known.get(family).copied().unwrap_or_default();
        Newer { heard: self.heard.clone(), family: family.to_owned(), known }
    }
}

/// Tells one family's work when something newer has come.
#[derive(Clone, Debug)]
pub struct Newer {
    heard: watch::Receiver<HashMap<String, u64>>,
    family: String,
    known: u64,
}

impl Newer {
    /// Whether it has.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.is_in(&self.heard.borrow())
    }

    /// Waits until it has.
    pub async fn comes(&self) {
        if self.heard.clone().wait_for(|heard| self.is_in(heard)).await.is_err() {
            // Nobody is left who could say so.
            pending().await
        }
    }

    fn is_in(&self, heard: &HashMap<String, u64>) -> bool {
        heard.get(&self.family).is_some_and(|times| *times > self.known)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn word_of_one_family_is_for_the_work_that_began_before_it() {
        let word = Word::default();
        word.spread(["a"]);
        let before = word.as_of_now();
        let (a, b) = (before.of("a"), before.of("b"));
        assert!(!a.has_come() && a.comes().now_or_never().is_none());
        word.spread(["a"]);
        assert!(a.has_come() && !b.has_come() && !word.as_of_now().of("a").has_come());
        a.comes().await;
        drop(word);
        assert!(b.comes().now_or_never().is_none(), "nothing comes when the program ends");
    }
}
