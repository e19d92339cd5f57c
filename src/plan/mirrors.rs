//! The mirrors of one repository, which many hold and few change.

use std::{
    collections::{BTreeMap, btree_map},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::MirrorRecord;
use crate::model::server::ServerUrl;

type Map = BTreeMap<ServerUrl, MirrorRecord>;

/// What is remembered of each mirror of one repository, by server.
///
/// A cycle hands this on for thousands of repositories of which nothing is new, to whoever keeps what it did: copies
/// share everything until one of them is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors(Arc<Map>);

impl Deref for Mirrors {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.0
    }
}

impl DerefMut for Mirrors {
    fn deref_mut(&mut self) -> &mut Map {
        Arc::make_mut(&mut self.0)
    }
}

impl FromIterator<(ServerUrl, MirrorRecord)> for Mirrors {
    fn from_iter<I: IntoIterator<Item = (ServerUrl, MirrorRecord)>>(each: I) -> Self {
        Self(Arc::new(each.into_iter().collect()))
    }
}

impl From<Map> for Mirrors {
    fn from(map: Map) -> Self {
        Self(Arc::new(map))
    }
}

impl<const N: usize> From<[(ServerUrl, MirrorRecord); N]> for Mirrors {
    fn from(each: [(ServerUrl, MirrorRecord); N]) -> Self {
        each.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Mirrors {
    type Item = (&'a ServerUrl, &'a MirrorRecord);
    type IntoIter = btree_map::Iter<'a, ServerUrl, MirrorRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Mirrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mirrors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}
