//! The pack a server needs.

use std::{
    collections::HashSet,
    fs,
    io::{self, BufWriter},
    sync::Arc,
};

use super::{
    GitError, ObjectId, Repository, consolidate::hold_packs, has, missing::missing, object_id, oid, read,
};
use crate::git::pack::{Pack, Selection, StoredPack, everything, some, write_pack};

/// How a pack is made.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// The server has what is wanted.
    Nothing,
    /// The server has nothing that tells us anything.
    Everything,
    /// The server has these, and so all they reach.
    Beyond(Vec<ObjectId>),
}

/// Chooses how to make the pack. `known` says whether an object is in our repository.
fn plan(wants: &[ObjectId], haves: &[ObjectId], known: impl Fn(&ObjectId) -> bool) -> Plan {
    let has: HashSet<_> = haves.iter().collect();
    if wants.iter().all(|want| has.contains(want)) {
        return Plan::Nothing;
    }
    let mut shared: Vec<_> = has.into_iter().filter(|id| known(id)).copied().collect();
    if shared.is_empty() {
        return Plan::Everything;
    }
    shared.sort_unstable();
    Plan::Beyond(shared)
}

impl Repository {
    /// The pack that a server with `haves` needs so that `wants` can be set there.
    ///
    /// `haves` are all object ids the server advertises; those unknown here are passed over. The pack may
    /// hold more than needed. It may be thin: deltas against objects that the server has.
    ///
    /// # Errors
    ///
    /// [`GitError::MissingTip`] when a want is not in the repository; or when packs cannot be read.
    pub fn pack_for(&self, wants: &[ObjectId], haves: &[ObjectId]) -> Result<Pack, GitError> {
        if let Some(gone) = self.missing(wants.iter().copied())?.first() {
            return Err(self.missing_tip("a pack to push", gone));
        }
        let _held = hold_packs();
        let raw = self.raw()?;
        let odb = raw.odb().map_err(self.git("opening the object database"))?;
        let plan = match plan(wants, haves, |id| has(&odb, id)) {
            // Not all that a base lends belongs to who borrows.
            Plan::Everything if self.is_small_part(&raw, wants)? => Plan::Beyond(Vec::new()),
            plan => plan,
        };
        match plan {
            Plan::Nothing => Ok(Pack::Empty),
            Plan::Everything => {
                let packs = self.stored_packs()?;
                let loose = self.loose_objects().map_err(self.io("listing loose objects"))?;
                if let ([only], true) = (packs.as_slice(), loose.is_empty()) {
                    return Pack::stored(&only.path).map_err(self.io("looking at a pack"));
                }
                let selection = everything(&packs, loose);
                self.build(&packs, &selection, &odb)
            }
            Plan::Beyond(shared) => {
                let wants: Vec<_> = wants.iter().map(oid).collect();
                let shared: Vec<_> = shared.iter().map(oid).collect();
                let missing =
                    missing(&raw, &wants, &shared).map_err(self.git("comparing with what a server has"))?;
                if missing.objects.is_empty() {
                    return Ok(Pack::Empty);
                }
                let packs = self.stored_packs()?;
                let ids = missing.objects.iter().map(|id| object_id(*id));
                let known = |id: &ObjectId| missing.known.contains(&oid(id));
                let selection = some(&packs, ids, known).map_err(self.pack())?;
                self.build(&packs, &selection, &odb)
            }
        }
    }

    fn build(
        &self,
        packs: &[StoredPack],
        selection: &Selection,
        odb: &git2::Odb<'_>,
    ) -> Result<Pack, GitError> {
        let doing = "writing a pack to push";
        let folder = self.make_incoming_dir().map_err(self.io(doing))?;
        let file = tempfile::Builder::new().prefix("push-").tempfile_in(folder).map_err(self.io(doing))?;
        let out = BufWriter::with_capacity(128 << 10, file.as_file());
        let (_, len) = write_pack(packs, selection, |id| read(odb, id), out).map_err(self.pack())?;
        Ok(Pack::Built { path: Arc::new(file.into_temp_path()), len })
    }

    /// The repository's packs and those it borrows, the largest first: most objects are then found in the first
    /// one asked.
    fn stored_packs(&self) -> Result<Vec<StoredPack>, GitError> {
        let mut packs = self.own_packs()?;
        packs.extend(self.borrowed_packs()?);
        packs.sort_by(|a, b| b.count().cmp(&a.count()).then_with(|| a.path.cmp(&b.path)));
        Ok(packs)
    }

    /// Objects outside packs. There are none unless somebody else wrote into the repository.
    fn loose_objects(&self) -> io::Result<Vec<ObjectId>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.path.join("objects"))? {
            let folder = folder?;
            let name = folder.file_name();
            let Some(start) = name.to_str().filter(|name| name.len() == 2) else { continue };
            for object in fs::read_dir(folder.path())? {
                let rest = object?.file_name();
                let id = rest.to_str().map(|rest| format!("{start}{rest}"));
                found.extend(id.and_then(|id| ObjectId::from_hex(id.as_bytes()).ok()));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::Sha1([byte; 20])
    }

    #[test]
    fn a_server_that_has_the_tips_needs_nothing() {
        assert_eq!(plan(&[id(1)], &[id(1), id(2)], |_| true), Plan::Nothing);
        assert_eq!(plan(&[], &[], |_| true), Plan::Nothing);
    }

    #[test]
    fn a_server_without_anything_we_know_gets_everything() {
        assert_eq!(plan(&[id(1)], &[], |_| true), Plan::Everything);
        assert_eq!(plan(&[id(1)], &[id(2)], |_| false), Plan::Everything);
    }

    #[test]
    fn what_a_server_shares_with_us_is_left_out() {
        assert_eq!(plan(&[id(1)], &[id(3), id(2), id(3)], |it| *it != id(2)), Plan::Beyond(vec![id(3)]));
    }
}
