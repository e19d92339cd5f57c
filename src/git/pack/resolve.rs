//! The second pass of indexing: every delta applied to its base, and so named.

use std::collections::HashSet;

use gix_hash::ObjectId;

use super::{
    Budget, MAX_LISTING, MAX_OBJECTS, PackError, delta,
    entry::{PackReader, kind_of},
    finish,
    index::{IndexEntry, UNKNOWN, id_of, object_hasher},
    links::{Kind, Links},
};

/// How many bytes of objects on one delta chain are kept; what is dropped is made again when needed.
const CHAIN_BUDGET: usize = 16 << 20;

/// No delta may be further from a full object. Git makes chains of 50 by default and of 4,095 at most.
const MAX_CHAIN: usize = 100_000;

/// What making an object again costs beside its bytes, as so many bytes: objects of no length, made again from the
/// start of a long chain, would cost nothing else.
const REMAKING: u64 = 1 << 10;

/// Which entry is a delta of which.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// (position of the base, position of the delta)
    at: Vec<(u32, u32)>,
    /// (id of the base, position of the delta)
    by_id: Vec<([u8; 20], u32)>,
}

impl Deltas {
    pub(super) fn add_at(&mut self, base: u32, delta: u32) {
        self.at.push((base, delta));
    }

    pub(super) fn add_by_id(&mut self, base: [u8; 20], delta: u32) {
        self.by_id.push((base, delta));
    }

    pub(super) fn sort(&mut self) {
        self.at.sort_unstable();
        self.by_id.sort_unstable();
    }

    /// The bases that are named by id, each once.
    pub(super) fn bases_by_id(&self) -> impl Iterator<Item = &[u8; 20]> {
        self.by_id.chunk_by(|a, b| a.0 == b.0).filter_map(|same| same.first()).map(|(base, _)| base)
    }

    fn is_base(&self, id: &[u8; 20]) -> bool {
        self.by_id.binary_search_by(|(base, _)| base.cmp(id)).is_ok()
    }

    /// The deltas made against the entry at `position`, which is the object `id`.
    fn of(&self, position: u32, id: &[u8; 20]) -> Vec<u32> {
        let at = self.at.get(self.at.partition_point(|(base, _)| *base < position)..).unwrap_or_default();
        let by_id = self.by_id.get(self.by_id.partition_point(|(base, _)| base < id)..).unwrap_or_default();
        let at = at.iter().take_while(|(base, _)| *base == position).map(|(_, delta)| *delta);
        at.chain(by_id.iter().take_while(|(base, _)| base == id).map(|(_, delta)| *delta)).collect()
    }
}

/// An object on the chain being worked on, and its deltas that are still to do.
struct Frame {
    position: u32,
    /// `None` once dropped for the sake of the budget.
    content: Option<Vec<u8>>,
    todo: Vec<u32>,
}

/// Walks the delta trees depth first.
pub(super) struct Resolver<'a> {
    reader: PackReader<'a>,
    end: u64,
    entries: &'a mut [IndexEntry],
    deltas: &'a Deltas,
    links: &'a mut Links,
    budget: &'a mut Budget,
    chain: Vec<Frame>,
    /// Bytes of content in the chain.
    kept: usize,
    /// The frames before this one have been dropped.
    kept_from: usize,
    /// Objects whose deltas by id have been found.
    bases: HashSet<[u8; 20]>,
}

impl<'a> Resolver<'a> {
    /// `end` is where the last entry ends, in bytes.
    pub(super) fn new(
        reader: PackReader<'a>,
        end: u64,
        entries: &'a mut [IndexEntry],
        deltas: &'a Deltas,
        links: &'a mut Links,
        budget: &'a mut Budget,
    ) -> Self {
        let (chain, bases) = (Vec::new(), HashSet::new());
        Self { reader, end, entries, deltas, links, budget, chain, kept: 0, kept_from: 0, bases }
    }

    /// Names every delta whose base can be reached; others keep [`UNKNOWN`].
    pub(super) fn run(mut self) -> Result<(), PackError> {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let full: Vec<u32> = (0..count).filter(|at| self.id(*at) != UNKNOWN).collect();
        for root in full {
            let todo = self.deltas_of(root, &self.id(root))?;
            if todo.is_empty() {
                continue;
            }
            let (header, content) = self.read(root)?;
            let Some(kind) = kind_of(&header) else { continue };
            self.push(root, content, todo)?;
            while let Some(frame) = self.chain.last_mut() {
                match frame.todo.pop() {
                    Some(delta) if self.id(delta) == UNKNOWN => self.resolve(kind, delta)?,
                    Some(_) => {}
                    None => self.pop(),
                }
            }
        }
        Ok(())
    }

    /// The deltas of an object. One that is in the pack twice is refused here, where its deltas would be found again
    /// for each copy.
    fn deltas_of(&mut self, position: u32, id: &[u8; 20]) -> Result<Vec<u32>, PackError> {
        if self.deltas.is_base(id) && !self.bases.insert(*id) {
            return Err(PackError::Duplicate { id: ObjectId::Sha1(*id) });
        }
        Ok(self.deltas.of(position, id))
    }

    /// Makes the object of the entry `position`, a delta of the chain's last object.
    fn resolve(&mut self, kind: Kind, position: u32) -> Result<(), PackError> {
        let base = self.take_base()?;
        let (_, delta) = self.read(position)?;
        let made = delta::apply(&base, &delta)
            .map_err(|reason| PackError::malformed(self.offset(position), reason))?;
        self.budget.take(made.len() as u64)?;
        if self.links.len() > MAX_OBJECTS {
            return Err(PackError::TooManyObjects);
        }
        if kind != Kind::Blob && made.len() as u64 > MAX_LISTING {
            return Err(PackError::malformed(self.offset(position), super::TOO_LARGE));
        }
        let last = self.chain.len().saturating_sub(1);
        if let Some(frame) = self.chain.last_mut().filter(|frame| !frame.todo.is_empty()) {
            self.kept += base.len();
            frame.content = Some(base);
            self.kept_from = self.kept_from.min(last);
        } else {
            drop(base);
        }
        let mut hasher = object_hasher(kind, made.len() as u64);
        hasher.update(&made);
        let id = id_of(finish(hasher)?);
        if let Some(entry) = self.entries.get_mut(position as usize) {
            entry.id = id;
        }
        self.links.add(kind, &made).map_err(|reason| PackError::malformed(self.offset(position), reason))?;
        let todo = self.deltas_of(position, &id)?;
        if !todo.is_empty() {
            self.push(position, made, todo)?;
        }
        Ok(())
    }

    /// Takes the content of the chain's last object out of its frame, making it again if it was dropped.
    fn take_base(&mut self) -> Result<Vec<u8>, PackError> {
        let nearest = self.chain.iter().rposition(|frame| frame.content.is_some());
        let last = self.chain.len().saturating_sub(1);
        if nearest == Some(last) {
            let content = self.chain.last_mut().and_then(|frame| frame.content.take()).unwrap_or_default();
            self.kept -= content.len();
            return Ok(content);
        }
        let (mut content, from) = match nearest {
            Some(at) => {
                (self.chain.get(at).and_then(|frame| frame.content.clone()).unwrap_or_default(), at + 1)
            }
            None => {
                let root = self.chain.first().map_or(0, |frame| frame.position);
                (self.read(root)?.1, 1)
            }
        };
        let dropped = self.chain.get(from..).unwrap_or_default();
        let positions: Vec<u32> = dropped.iter().map(|frame| frame.position).collect();
        for position in positions {
            let (_, delta) = self.read(position)?;
            content = delta::apply(&content, &delta)
                .map_err(|reason| PackError::malformed(self.offset(position), reason))?;
            self.budget.take(content.len() as u64 + REMAKING)?;
        }
        Ok(content)
    }

    fn push(&mut self, position: u32, content: Vec<u8>, todo: Vec<u32>) -> Result<(), PackError> {
        if self.chain.len() > MAX_CHAIN {
            return Err(PackError::malformed(self.offset(position), "a chain of too many deltas"));
        }
        self.kept += content.len();
        self.chain.push(Frame { position, content: Some(content), todo });
        let last = self.chain.len().saturating_sub(1);
        // The nearest to the root go first.
        while self.kept > CHAIN_BUDGET && self.kept_from < last {
            let dropped = self.chain.get_mut(self.kept_from).and_then(|frame| frame.content.take());
            self.kept -= dropped.map_or(0, |content| content.len());
            self.kept_from += 1;
        }
        Ok(())
    }

    fn pop(&mut self) {
        let content = self.chain.pop().and_then(|frame| frame.content);
        self.kept -= content.map_or(0, |content| content.len());
        self.kept_from = self.kept_from.min(self.chain.len());
    }

    fn read(&mut self, position: u32) -> Result<(gix_pack::data::entry::Header, Vec<u8>), PackError> {
        let next = self.entries.get(position as usize + 1).map_or(self.end, |entry| entry.offset);
        self.reader.read(self.offset(position), next)
    }

    fn offset(&self, position: u32) -> u64 {
        self.entries.get(position as usize).map_or(0, |entry| entry.offset)
    }

    fn id(&self, position: u32) -> [u8; 20] {
        self.entries.get(position as usize).map_or(UNKNOWN, |entry| entry.id)
    }
}
