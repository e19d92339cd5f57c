//! Something said of each of a few servers, which many hold and few change.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use litemap::LiteMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{placement::Place, record::MirrorRecord};
use crate::model::server::ServerUrl;

/// What is remembered of each mirror of one repository.
pub type Mirrors = PerServer<MirrorRecord>;

/// Where one repository belongs.
pub type Places = PerServer<Place>;

/// A map by server, in their order.
///
/// A daemon keeps some for each of thousands of repositories of which nothing is new, and hands them on: copies share
/// everything until one of them is changed. Each takes no more room than its few entries; a B-tree makes room for eleven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerServer<T>(Arc<LiteMap<ServerUrl, T>>);

impl<T> Default for PerServer<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Deref for PerServer<T> {
    type Target = LiteMap<ServerUrl, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Clone> DerefMut for PerServer<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> FromIterator<(ServerUrl, T)> for PerServer<T> {
    fn from_iter<I: IntoIterator<Item = (ServerUrl, T)>>(each: I) -> Self {
        Self(Arc::new(each.into_iter().collect()))
    }
}

impl<T> From<BTreeMap<ServerUrl, T>> for PerServer<T> {
    fn from(map: BTreeMap<ServerUrl, T>) -> Self {
        map.into_iter().collect()
    }
}

impl<T, const N: usize> From<[(ServerUrl, T); N]> for PerServer<T> {
    fn from(each: [(ServerUrl, T); N]) -> Self {
        each.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a PerServer<T> {
    type Item = (&'a ServerUrl, &'a T);
    type IntoIter = <&'a LiteMap<ServerUrl, T> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize> Serialize for PerServer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PerServer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}
