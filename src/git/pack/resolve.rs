//! The second pass of indexing: every delta applied to its base, and so named.

use super::{
    PackError, delta,
    entry::{PackReader, kind_of},
    finish,
    index::{IndexEntry, UNKNOWN, id_of, object_hasher},
    links::{Kind, Links},
};

/// How many bytes of objects on one delta chain are kept; what is dropped is made again when needed.
const CHAIN_BUDGET: usize = 16 << 20;

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
    chain: Vec<Frame>,
    kept: usize,
}

impl<'a> Resolver<'a> {
    /// `end` is where the last entry ends, in bytes.
    pub(super) fn new(
        reader: PackReader<'a>,
        end: u64,
        entries: &'a mut [IndexEntry],
        deltas: &'a Deltas,
        links: &'a mut Links,
    ) -> Self {
        Self { reader, end, entries, deltas, links, chain: Vec::new(), kept: 0 }
    }

    /// Names every delta whose base can be reached; others keep [`UNKNOWN`].
    pub(super) fn run(mut self) -> Result<(), PackError> {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let full: Vec<u32> = (0..count).filter(|at| self.id(*at) != UNKNOWN).collect();
        for root in full {
            let todo = self.deltas.of(root, &self.id(root));
            if todo.is_empty() {
                continue;
            }
            let (header, content) = self.read(root)?;
            let Some(kind) = kind_of(&header) else { continue };
            self.push(root, content, todo);
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

    /// Makes the object of the entry `position`, a delta of the chain's last object.
    fn resolve(&mut self, kind: Kind, position: u32) -> Result<(), PackError> {
        let base = self.take_base()?;
        let (_, delta) = self.read(position)?;
        let made = delta::apply(&base, &delta)
            .map_err(|reason| PackError::malformed(self.offset(position), reason))?;
        if let Some(frame) = self.chain.last_mut().filter(|frame| !frame.todo.is_empty()) {
            self.kept += base.len();
            frame.content = Some(base);
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
        let todo = self.deltas.of(position, &id);
        if !todo.is_empty() {
            self.push(position, made, todo);
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
        let mut positions: Vec<u32> = self.chain.iter().map(|frame| frame.position).collect();
        let (mut content, from) = match nearest {
            Some(at) => {
                (self.chain.get(at).and_then(|frame| frame.content.clone()).unwrap_or_default(), at + 1)
            }
            None => {
                let root = positions.first().copied().unwrap_or_default();
                (self.read(root)?.1, 1)
            }
        };
        for position in positions.drain(from..) {
            let (_, delta) = self.read(position)?;
            content = delta::apply(&content, &delta)
                .map_err(|reason| PackError::malformed(self.offset(position), reason))?;
        }
        Ok(content)
    }

    fn push(&mut self, position: u32, content: Vec<u8>, todo: Vec<u32>) {
        self.kept += content.len();
        self.chain.push(Frame { position, content: Some(content), todo });
        let last = self.chain.len().saturating_sub(1);
        for frame in self.chain.iter_mut().take(last) {
            if self.kept <= CHAIN_BUDGET {
                break;
            }
            self.kept -= frame.content.take().map_or(0, |content| content.len());
        }
    }

    fn pop(&mut self) {
        let content = self.chain.pop().and_then(|frame| frame.content);
        self.kept -= content.map_or(0, |content| content.len());
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
