//! What people do: they publish, rewind, delete, rename, invite, argue, and some of them lie.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::model::{
    announcement::Announcement,
    coordinate::{Coordinate, npub},
    refs::{ObjectId, Refs},
};
use nostr::{
    event::{Event, Kind},
    types::Timestamp,
};

use crate::{
    grasp::Change,
    people::{event, key, tag},
    world::{Target, World, tell},
};

/// Nobody listed them.
pub const STRANGER: u8 = 99;

/// A repository as its people see it.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its identifier.
    pub d: String,
    /// Whose it is.
    pub owner: u8,
    /// Who may help, if the owner lists them and they the owner.
    pub helper: u8,
    /// Whether the owner lists the helper.
    pub invites: bool,
    /// Whether the role tags are the new ones.
    pub new_tags: bool,
    /// Whether the owner leads (`M`).
    pub leads: bool,
    /// The servers that the owner lists.
    pub listed: BTreeSet<usize>,
    /// `["private","true"]`.
    pub private: bool,
    /// What the owner last signed.
    pub refs: Refs,
    /// Everything that was said about it.
    pub talk: Vec<Event>,
    /// The last announcement.
    pub announcement: Option<Event>,
    /// The last date used.
    pub dated: u64,
}

impl Project {
    /// `30617:<owner>:<d>`.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::new(key(self.owner), self.d.clone())
    }
}

impl World {
    /// Sends `event` around: some get it late, some twice, some not at all. The first relay gets everything.
    fn publish(&mut self, event: &Event) {
        let relays = (0..self.relays.len()).map(Target::Relay);
        let targets: Vec<Target> = relays.chain((0..self.hosts.len()).map(Target::Host)).collect();
        for target in targets {
            let always = target == Target::Relay(0);
            if !always && self.chance(40) {
                continue;
            }
            for _ in 0..if self.chance(15) { 2 } else { 1 } {
                let delay = if self.chance(10) { self.rng.u64(..7_200) } else { self.rng.u64(..60) };
                self.mail.push((self.now + delay, target, event.clone()));
            }
        }
    }

    /// The date of the next event: now, or, with a clock that is wrong, a little earlier.
    fn date(&mut self, project: usize) -> Timestamp {
        let wrong = self.chance(5);
        let project = &mut self.projects[project];
        let at = if wrong { project.dated.saturating_sub(30) } else { self.now };
        project.dated = project.dated.max(at);
        Timestamp::from_secs(at)
    }

    /// The owner announces the project as it is.
    pub fn announce(&mut self, at: usize) {
        let date = self.date(at);
        let project = &self.projects[at];
        let owner = key(project.owner);
        let mut clone =
            vec!["clone".to_owned(), format!("https://home.example/{}/{}.git", project.owner, project.d)];
        let mut relays = vec!["relays".to_owned(), "wss://relay0.example".to_owned()];
        for host in &project.listed {
            let url = &self.hosts[*host].grasp.url;
            clone.push(url.clone_url(&owner, &project.d).to_string());
            relays.push(url.to_string());
        }
        let mut tags = vec![tag(&["d", &project.d]), clone, relays];
        if project.leads {
            tags.push(tag(&["M", &owner.to_hex()]));
        }
        if project.invites {
            // Beside a role tag the old one says nothing.
            let name = if project.new_tags || project.leads { "m" } else { "maintainers" };
            tags.push(tag(&[name, &key(project.helper).to_hex()]));
        }
        if project.private {
            tags.push(tag(&["private", "true"]));
        }
        let event = event(owner, 30617, date, "", tags);
        tell!(
            self,
            "project {at}: announcement {} (listed on {:?}, private: {})",
            event.id,
            self.projects[at].listed,
            self.projects[at].private
        );
        self.publish(&event);
        self.projects[at].announcement = Some(event);
    }

    fn state(&mut self, at: usize, who: u8, refs: &Refs) -> Event {
        let date = self.date(at);
        let mut tags = vec![tag(&["d", &self.projects[at].d])];
        tags.extend(refs.iter().map(|(name, id)| tag(&[name.as_str(), &id.to_string()])));
        if let Some(head) = refs.keys().find(|name| name.is_branch()) {
            tags.push(tag(&["HEAD", &format!("ref: {head}")]));
        }
        event(key(who), 30618, date, "", tags)
    }

    /// The owner, or the helper, signs `refs`, and perhaps brings them to the listed servers by itself.
    pub fn sign_state(&mut self, at: usize, who: u8, refs: Refs) -> Event {
        let state = self.state(at, who, &refs);
        tell!(self, "project {at}: state {} by {who}: {:?}", state.id, shown(&refs));
        self.publish(&state);
        self.projects[at].refs = refs.clone();
        let listed: Vec<usize> = self.projects[at].listed.iter().copied().collect();
        for host in listed {
            if self.hosts[host].faults.down || self.chance(40) {
                continue;
            }
            let (now, path) = (self.time(), self.projects[at].coordinate());
            let announcement = self.projects[at].announcement.clone();
            let grasp = &mut self.hosts[host].grasp;
            for event in announcement.iter().chain([&state]) {
                grasp.send(event, &self.history, now);
            }
            let mut changes: BTreeMap<String, Option<ObjectId>> = BTreeMap::new();
            for name in grasp.refs(&path).into_iter().flat_map(BTreeMap::keys) {
                if !name.starts_with("refs/nostr/") {
                    changes.insert(name.clone(), None);
                }
            }
            changes.extend(refs.iter().map(|(name, id)| (name.to_string(), Some(*id))));
            let changes: Vec<Change> = changes.into_iter().collect();
            let objects = self.history.closure(refs.values().copied());
            let done = grasp.push(&path, &changes, &objects, &self.history, now);
            tell!(self, "  its owner pushes to server {host}: {done:?}");
        }
        state
    }

    /// The owner of a repository called `family` pushes another commit, or lists other servers; what the bot hears of at
    /// once.
    pub fn sign_newer(&mut self, family: &str) -> Option<Event> {
        let at = self.projects.iter().position(|project| project.d == family)?;
        if self.habits.hands_on && self.chance(30) {
            self.look_up(at);
            self.change_servers(at);
            return self.projects[at].announcement.clone();
        }
        let (owner, mut refs) = (self.projects[at].owner, self.projects[at].refs.clone());
        let main = "refs/heads/main".parse().unwrap();
        let tip = refs.get(&main).copied();
        refs.insert(main, self.history.commit(tip));
        Some(self.sign_state(at, owner, refs))
    }

    /// The owner lists another server, or takes one out.
    fn change_servers(&mut self, at: usize) {
        let host = self.rng.usize(..self.hosts.len());
        let listed = &mut self.projects[at].listed;
        if !listed.remove(&host) {
            listed.insert(host);
        }
        self.announce(at);
    }

    /// The newest announcement of a project, whoever has it.
    fn newest_announcement(&self, at: usize) -> Option<Announcement> {
        let name = self.projects[at].coordinate();
        let served = self.hosts.iter().flat_map(|host| host.grasp.served());
        let all = self.relays.iter().flat_map(|relay| relay.events.values()).chain(served);
        let own = all.filter(|event| {
            event.kind == Kind::GitRepoAnnouncement
                && event.pubkey == name.owner
                && event.tags.identifier().as_ref() == Some(&name.identifier)
        });
        own.max_by_key(|event| (event.created_at, std::cmp::Reverse(event.id)))
            .cloned()
            .and_then(Announcement::read)
    }

    /// Some clients begin with the newest version there is, and others know their own only.
    fn look_up(&mut self, at: usize) {
        if !self.habits.signs || self.chance(30) {
            return;
        }
        if let Some(newest) = self.newest_announcement(at) {
            let listed = (0..self.hosts.len()).filter(|host| newest.lists(&self.hosts[*host].grasp.url));
            let listed: Vec<usize> = listed.collect();
            self.projects[at].listed.extend(listed);
        }
    }

    /// The owner of a project leaves little of it, or nothing.
    pub(crate) fn sign_little(&mut self, at: usize) {
        let (owner, mut refs) = (self.projects[at].owner, self.projects[at].refs.clone());
        let left = self.rng.usize(..2);
        while refs.len() > left {
            refs.pop_last();
        }
        self.sign_state(at, owner, refs);
    }

    /// Somebody does something.
    pub fn somebody_acts(&mut self) {
        let at = self.rng.usize(..self.projects.len());
        self.look_up(at);
        let (owner, helper) = (self.projects[at].owner, self.projects[at].helper);
        let mut refs = self.projects[at].refs.clone();
        let main = "refs/heads/main".parse().unwrap();
        let tip = refs.get(&main).copied();
        match self.rng.u8(..32) {
            0..=7 => {
                refs.insert(main, self.history.commit(tip));
                self.sign_state(at, owner, refs);
            }
            8 | 9 => {
                // Rewound.
                if let Some(before) = tip.and_then(|tip| self.history.parent(&tip)) {
                    refs.insert(main, before);
                    self.sign_state(at, owner, refs);
                }
            }
            10 => {
                let name = ["refs/heads/topic", "refs/tags/v1", "refs/heads/a"][self.rng.usize(..3)];
                refs.insert(name.parse().unwrap(), self.history.commit(tip));
                self.sign_state(at, owner, refs);
            }
            11 | 12 => {
                let names: Vec<_> = refs.keys().cloned().collect();
                if names.len() > 1 {
                    refs.remove(&names[self.rng.usize(..names.len())]);
                    self.sign_state(at, owner, refs);
                }
            }
            13 => {
                // The default branch gets another name.
                if let Some(tip) = refs.remove(&main) {
                    refs.insert("refs/heads/trunk".parse().unwrap(), tip);
                    self.sign_state(at, owner, refs);
                }
            }
            14 => self.change_servers(at),
            15 => {
                self.projects[at].invites ^= true;
                self.announce(at);
            }
            16 => {
                let date = self.date(at);
                let d = self.projects[at].d.clone();
                let lists_back = self.chance(70);
                let mut tags = vec![tag(&["d", &d])];
                if lists_back {
                    tags.push(tag(&["maintainers", &key(owner).to_hex()]));
                }
                let event = event(key(helper), 30617, date, "", tags);
                tell!(self, "project {at}: its helper announces it (lists back: {lists_back}): {}", event.id);
                self.publish(&event);
            }
            17 => {
                refs.insert(main, self.history.commit(tip));
                self.sign_state(at, helper, refs);
            }
            18 | 19 => self.stranger_lies(at),
            20 => {
                self.projects[at].private ^= true;
                self.announce(at);
            }
            21 => {
                let date = self.date(at);
                let a = self.projects[at].coordinate().to_string();
                let deletion = event(key(owner), 5, date, "", vec![tag(&["a", &a]), tag(&["k", "30617"])]);
                tell!(self, "project {at}: deleted");
                self.publish(&deletion);
            }
            22 | 23 => {
                self.projects[at].leads ^= self.habits.leads && self.chance(70);
                self.announce(at);
            }
            24..=29 => self.somebody_talks(at),
            30 => {
                let again = self.projects[at].refs.clone();
                self.sign_state(at, owner, again);
            }
            _ => {
                if self.chance(30) {
                    self.sign_state(at, owner, Refs::new());
                }
            }
        }
    }

    /// A stranger claims the project, and signs a state of it.
    fn stranger_lies(&mut self, at: usize) {
        let project = &self.projects[at];
        let (d, owner) = (project.d.clone(), key(project.owner).to_hex());
        let url = self.hosts[0].grasp.url.clone();
        let me = key(STRANGER);
        let tags = vec![
            tag(&["d", &d]),
            tag(&["clone", url.clone_url(&me, &d).as_str()]),
            tag(&["relays", &url.to_string()]),
            tag(&["maintainers", &owner]),
        ];
        let date = self.date(at);
        let announcement = event(me, 30617, date, "", tags);
        let evil = self.history.commit(None);
        let state = self.state(at, STRANGER, &Refs::from([("refs/heads/main".parse().unwrap(), evil)]));
        tell!(self, "project {at}: a stranger signs {}", state.id);
        self.publish(&announcement);
        self.publish(&state);
    }

    fn somebody_talks(&mut self, at: usize) {
        let date = self.date(at);
        let who = [self.projects[at].owner, self.projects[at].helper, STRANGER][self.rng.usize(..3)];
        let a = self.projects[at].coordinate().to_string();
        let parent = match self.projects[at].talk.len() {
            0 => None,
            count => Some(self.projects[at].talk[self.rng.usize(..count)].id.to_hex()),
        };
        let mut tags = vec![tag(&["a", &a])];
        let kind = match (self.rng.u8(..7), parent) {
            (0 | 1, Some(parent)) => {
                tags = vec![tag(&["E", &parent]), tag(&["e", &parent])];
                1111
            }
            (2, _) => {
                tags.push(tag(&["-"]));
                1621
            }
            (3, _) => {
                tags.push(tag(&["expiration", &(self.now + self.rng.u64(..7_200)).to_string()]));
                1621
            }
            (4 | 5, _) => {
                let tip = self.projects[at].refs.values().next().copied();
                let commit = self.history.commit(tip);
                tags.push(tag(&["c", &commit.to_string()]));
                1618
            }
            _ => 1621,
        };
        let event = event(key(who), kind, date, "", tags);
        tell!(self, "project {at}: {kind} {} by {who}, protected: {}", event.id, event.is_protected());
        self.publish(&event);
        self.projects[at].talk.push(event);
    }
}

fn shown(refs: &Refs) -> Vec<String> {
    refs.iter()
        .map(|(name, id)| format!("{}={}", name.as_str().trim_start_matches("refs/"), &id.to_string()[..16]))
        .collect()
}

/// How an owner is called.
#[must_use]
pub fn called(project: &Project) -> String {
    format!("{}/{}", npub(&key(project.owner)), project.d)
}
