//! What the simulator's server does, a real one does: the same scenarios against both.
//!
//! Not here: that what is kept back is purged after 30 minutes, since `ngit-grasp` has no setting for it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use grasp_mirror::model::{coordinate::Coordinate, refs::ObjectId, server::ServerUrl};
use grasp_mirror_simulator::{
    git::History,
    grasp::{Change, Grasp, Said},
};
use grasp_mirror_testkit::{Person, Server, Work, look};
use nostr::{event::Event, key::PublicKey, types::Timestamp};

/// Heads and tags, by name.
type Refs = BTreeMap<String, String>;

/// A server, as its users meet it.
trait GraspServer {
    /// Its address.
    fn url(&self) -> ServerUrl;
    /// Sends an event.
    async fn send(&mut self, event: &Event) -> Said;
    /// Whether it serves the event, now or in a moment.
    async fn serves(&mut self, event: &Event) -> bool;
    /// Whether it does not, or not any more.
    async fn withholds(&mut self, event: &Event) -> bool;
    /// The heads and tags at a path.
    async fn refs(&mut self, owner: PublicKey, d: &str) -> Refs;
    /// Pushes these changes of refs (`None` deletes) in one request; whether it was taken.
    async fn push(&mut self, owner: PublicKey, d: &str, changes: &[(&str, Option<&str>)]) -> bool;
    /// Takes everything from it.
    async fn wipe(&mut self);
}

/// The simulated one.
struct Simulated {
    grasp: Grasp,
    history: History,
}

impl Simulated {
    fn new(commits: &[String]) -> Self {
        let mut history = History::default();
        let mut before = None;
        for commit in commits {
            let id = ObjectId::from_hex(commit.as_bytes()).unwrap();
            history.learn(id, before);
            before = Some(id);
        }
        Self { grasp: Grasp::new("ws://127.0.0.1:7701".parse().unwrap()), history }
    }
}

impl GraspServer for Simulated {
    fn url(&self) -> ServerUrl {
        self.grasp.url.clone()
    }

    async fn send(&mut self, event: &Event) -> Said {
        self.grasp.send(event, &self.history, Timestamp::now())
    }

    async fn serves(&mut self, event: &Event) -> bool {
        self.grasp.serves(&event.id)
    }

    async fn withholds(&mut self, event: &Event) -> bool {
        !self.grasp.serves(&event.id)
    }

    async fn refs(&mut self, owner: PublicKey, d: &str) -> Refs {
        let refs = self.grasp.refs(&Coordinate::new(owner, d)).cloned().unwrap_or_default();
        let mirrored = refs.into_iter().filter(|(name, _)| !name.starts_with("refs/nostr/"));
        mirrored.map(|(name, id)| (name, id.to_string())).collect()
    }

    async fn push(&mut self, owner: PublicKey, d: &str, changes: &[(&str, Option<&str>)]) -> bool {
        let id = |commit: &str| ObjectId::from_hex(commit.as_bytes()).unwrap();
        let changes: Vec<Change> =
            changes.iter().map(|(name, new)| ((*name).to_owned(), new.map(id))).collect();
        let sent: BTreeSet<ObjectId> = self.history.closure(changes.iter().filter_map(|(_, new)| *new));
        self.grasp.push(&Coordinate::new(owner, d), &changes, &sent, &self.history, Timestamp::now()).is_ok()
    }

    async fn wipe(&mut self) {
        self.grasp.wipe();
    }
}

/// The real one.
struct Real<'a> {
    server: Server,
    work: &'a Work,
}

impl GraspServer for Real<'_> {
    fn url(&self) -> ServerUrl {
        self.server.url().parse().unwrap()
    }

    async fn send(&mut self, event: &Event) -> Said {
        let answer = self.server.send(event).await;
        if answer.accepted && answer.message.contains("purgatory") {
            return Said::Purgatory;
        }
        if answer.accepted || answer.message.contains("duplicate:") {
            Said::Taken
        } else {
            Said::Refused(answer.message)
        }
    }

    async fn serves(&mut self, event: &Event) -> bool {
        // It needs a moment to release what it kept back.
        look::wait_until("it is served", async || look::serves(&self.server, event).await).await;
        true
    }

    async fn withholds(&mut self, event: &Event) -> bool {
        // As long as it took if it were to be released.
        let mut looks = 0;
        look::wait_until("it is not served", async || {
            tokio::time::sleep(Duration::from_millis(80)).await;
            looks = if look::serves(&self.server, event).await { 0 } else { looks + 1 };
            looks == 10
        })
        .await;
        true
    }

    async fn refs(&mut self, owner: PublicKey, d: &str) -> Refs {
        look::refs(&self.server.repo_url(&owner, d)).await
    }

    async fn push(&mut self, owner: PublicKey, d: &str, changes: &[(&str, Option<&str>)]) -> bool {
        let url = self.server.repo_url(&owner, d);
        let specs: Vec<String> =
            changes.iter().map(|(name, new)| format!("{}:{name}", new.unwrap_or_default())).collect();
        let mut push = self.work.command();
        push.args(["push", "--force", &url]).args(specs);
        tokio::task::spawn_blocking(move || push.output().unwrap().status.success()).await.unwrap()
    }

    async fn wipe(&mut self) {
        self.server.wipe().await;
    }
}

/// Somebody with a repository, and commits that sit on each other.
struct Scene<'a, S> {
    server: S,
    owner: Person,
    commits: &'a [String],
}

const D: &str = "hello";

impl<S: GraspServer> Scene<'_, S> {
    fn key(&self) -> PublicKey {
        self.owner.public_key()
    }

    fn coordinate(&self) -> String {
        format!("30617:{}:{D}", self.key().to_hex())
    }

    /// An announcement of `who` that lists the server, with more tags.
    fn listing(&self, who: &Person, more: &[&[&str]]) -> Event {
        let url = self.server.url();
        let (clone, relay) = (url.clone_url(&who.public_key(), D).to_string(), url.to_string());
        let tags: [&[&str]; 3] = [&["d", D], &["clone", &clone], &["relays", &relay]];
        who.sign(30617, "", &[&tags[..], more].concat())
    }

    /// The owner's announcement that lists another server, with more tags.
    fn elsewhere(&self, more: &[&[&str]]) -> Event {
        let tags: [&[&str]; 3] = [&["d", D], &["clone", "https://x/y.git"], &["relays", "wss://x"]];
        self.owner.sign(30617, "", &[&tags[..], more].concat())
    }

    /// A state of `who`: `main` at the commit with this number, and `topic` at another.
    fn state(&self, who: &Person, main: usize, topic: Option<usize>) -> Event {
        let mut tags = vec![vec!["d", D], vec!["refs/heads/main", &self.commits[main]]];
        tags.extend(topic.map(|topic| vec!["refs/heads/topic", &self.commits[topic]]));
        tags.push(vec!["HEAD", "ref: refs/heads/main"]);
        let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
        who.sign(30618, "", &tags)
    }

    async fn push_main(&mut self, commit: usize) -> bool {
        let (key, commit) = (self.key(), self.commits[commit].clone());
        self.server.push(key, D, &[("refs/heads/main", Some(&commit))]).await
    }

    fn refs_at(&self, main: usize) -> Refs {
        Refs::from([("refs/heads/main".to_owned(), self.commits[main].clone())])
    }

    /// Announced, signed and pushed; the announcement and the state.
    async fn published(&mut self) -> (Event, Event) {
        let announcement = self.listing(&self.owner, &[]);
        let state = self.state(&self.owner, 1, None);
        assert_eq!(self.server.send(&announcement).await, Said::Purgatory);
        assert_eq!(self.server.send(&state).await, Said::Purgatory);
        assert!(self.push_main(1).await);
        assert!(self.server.serves(&state).await && self.server.serves(&announcement).await);
        (announcement, state)
    }

    /// A copy of `bot`'s that names the owner, with its git data; its state.
    async fn copied_by(&mut self, bot: &Person) -> Event {
        let copy = self.listing(bot, &[&["maintainers", &self.key().to_hex()]]);
        let copied = self.state(bot, 1, None);
        assert_eq!(self.server.send(&copy).await, Said::Purgatory);
        assert_eq!(self.server.send(&copied).await, Said::Purgatory);
        let commit = self.commits[1].clone();
        assert!(self.server.push(bot.public_key(), D, &[("refs/heads/main", Some(&commit))]).await);
        copied
    }
}

fn is_refused(said: &Said, words: &str) -> bool {
    matches!(said, Said::Refused(why) if why.contains(words))
}

/// Each scenario becomes two tests.
macro_rules! contract {
    ($($name:ident($scene:ident) $body:block)*) => {
        mod scenarios {
            use super::*;
            $(pub(super) async fn $name<S: GraspServer>(mut $scene: Scene<'_, S>) $body)*
        }
        mod simulated {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let commits: Vec<String> = (1..6).map(|n| format!("{n:040x}")).collect();
                let server = Simulated::new(&commits);
                scenarios::$name(Scene { server, owner: Person::new(), commits: &commits }).await;
            })*
        }
        mod real {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let work = Work::empty();
                let commits: Vec<String> = (1..6).map(|n| work.commit("file", &n.to_string())).collect();
                let server = Real { server: Server::start().await, work: &work };
                scenarios::$name(Scene { server, owner: Person::new(), commits: &commits }).await;
            })*
        }
    };
}

contract! {
    what_is_not_listed_is_refused(scene) {
        let elsewhere = scene.elsewhere(&[]);
        assert!(is_refused(&scene.server.send(&elsewhere).await, "must list service"));
        let state = scene.state(&scene.owner, 1, None);
        assert!(is_refused(&scene.server.send(&state).await, "no announcement exists"));
    }

    a_state_is_served_once_its_git_data_is_there(scene) {
        let announcement = scene.listing(&scene.owner, &[]);
        let state = scene.state(&scene.owner, 1, None);
        assert_eq!(scene.server.send(&announcement).await, Said::Purgatory);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory, "also when it is sent again");
        assert!(scene.server.withholds(&state).await && scene.server.withholds(&announcement).await);
        assert!(scene.push_main(1).await);
        assert!(scene.server.serves(&state).await && scene.server.serves(&announcement).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(1));
    }

    a_push_has_to_be_exactly_the_state(scene) {
        scene.published().await;
        let (key, [two, three]) = (scene.key(), [2, 3].map(|n: usize| scene.commits[n].clone()));
        let main = "refs/heads/main";
        assert!(!scene.push_main(2).await, "nothing is pending");
        let state = scene.state(&scene.owner, 2, Some(3));
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        assert!(!scene.push_main(2).await, "one is missing");
        assert!(!scene.server.push(key, D, &[(main, Some(&three)), ("refs/heads/topic", Some(&three))]).await);
        let more = [(main, Some(&*two)), ("refs/heads/topic", Some(&*three)), ("refs/heads/more", Some(&*two))];
        assert!(!scene.server.push(key, D, &more).await);
        assert!(scene.server.push(key, D, &more[..2]).await);
        assert!(scene.server.serves(&state).await);
    }

    a_rewind_needs_no_push(scene) {
        scene.published().await;
        let later = scene.state(&scene.owner, 3, None);
        assert_eq!(scene.server.send(&later).await, Said::Purgatory);
        assert!(scene.push_main(3).await && scene.server.serves(&later).await);
        let rewound = scene.state(&scene.owner, 0, None);
        assert_eq!(scene.server.send(&rewound).await, Said::Taken);
        assert!(scene.server.serves(&rewound).await && scene.server.withholds(&later).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(0));
    }

    an_older_state_changes_nothing(scene) {
        let older = scene.state(&scene.owner, 0, None);
        let (_, state) = scene.published().await;
        assert_eq!(scene.server.send(&older).await, Said::Taken);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(1));
        assert!(scene.server.serves(&state).await && scene.server.withholds(&older).await);
    }

    a_strangers_state_is_refused(scene) {
        scene.published().await;
        let stranger = Person::new();
        let state = scene.state(&stranger, 2, None);
        assert!(is_refused(&scene.server.send(&state).await, "restricted:"));
        let invited = scene.listing(&scene.owner, &[&["maintainers", &stranger.public_key().to_hex()]]);
        scene.server.send(&invited).await;
        assert!(is_refused(&scene.server.send(&state).await, "restricted:"), "an invitation is not enough");
    }

    a_deletion_takes_the_repository_along(scene) {
        let (announcement, state) = scene.published().await;
        let a = scene.coordinate();
        let deletion = scene.owner.sign(5, "", &[&["a", &a], &["k", "30617"]]);
        scene.server.send(&deletion).await;
        assert!(scene.server.withholds(&announcement).await);
        assert!(is_refused(&scene.server.send(&announcement).await, "deleted"));
        assert!(!matches!(scene.server.send(&state).await, Said::Purgatory));
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
    }

    a_deletion_takes_nothing_that_was_announced_later(scene) {
        let (bot, a) = (Person::new(), scene.coordinate());
        scene.owner.signed_ago(100);
        let early = scene.listing(&scene.owner, &[]);
        assert_eq!(scene.server.send(&early).await, Said::Purgatory);
        scene.owner.signed_ago(50);
        scene.copied_by(&bot).await;
        // It takes the server off the list, on which it was only kept back, and is taken by way of the copy the second time.
        let elsewhere = scene.elsewhere(&[]);
        assert!(is_refused(&scene.server.send(&elsewhere).await, "must list service"));
        assert_eq!(scene.server.send(&elsewhere).await, Said::Taken);
        let listed = scene.listing(&scene.owner, &[]);
        assert_eq!(scene.server.send(&listed).await, Said::Taken);
        scene.owner.signed_ago(80);
        let deletion = scene.owner.sign(5, "", &[&["a", &a], &["k", "30617"]]);
        scene.server.send(&deletion).await;
        assert!(scene.server.serves(&listed).await);
        scene.owner.signed_ago(40);
        let state = scene.state(&scene.owner, 2, None);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        assert!(scene.push_main(2).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(2));
    }

    a_pull_request_waits_for_its_commit(scene) {
        scene.published().await;
        let (a, commit) = (scene.coordinate(), scene.commits[4].clone());
        let request = Person::new().sign(1618, "", &[&["a", &a], &["c", &commit]]);
        assert_eq!(scene.server.send(&request).await, Said::Purgatory);
        assert!(scene.server.withholds(&request).await);
        let (key, name) = (scene.key(), format!("refs/nostr/{}", request.id.to_hex()));
        assert!(scene.server.push(key, D, &[(&name, Some(&commit))]).await);
        assert!(scene.server.serves(&request).await);
    }

    a_conversation_needs_what_it_is_about(scene) {
        let a = scene.coordinate();
        let issue = Person::new().sign(1621, "", &[&["a", &a]]);
        assert!(is_refused(&scene.server.send(&issue).await, "restricted:"));
        scene.published().await;
        let reply = Person::new().sign(1111, "", &[&["E", &issue.id.to_hex()], &["e", &issue.id.to_hex()]]);
        assert!(is_refused(&scene.server.send(&reply).await, "restricted:"));
        assert_eq!(scene.server.send(&issue).await, Said::Taken);
        assert_eq!(scene.server.send(&reply).await, Said::Taken);
        let protected = Person::new().sign(1621, "", &[&["a", &a], &["-"]]);
        assert!(is_refused(&scene.server.send(&protected).await, "auth-required:"));
    }

    a_wiped_server_takes_it_all_again(scene) {
        let (announcement, state) = scene.published().await;
        scene.server.wipe().await;
        assert!(scene.server.withholds(&state).await);
        assert!(is_refused(&scene.server.send(&state).await, "no announcement exists"), "wiped between the two");
        assert_eq!(scene.server.send(&announcement).await, Said::Purgatory);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        assert!(scene.push_main(1).await && scene.server.serves(&state).await);
    }

    a_copy_follows_the_lead_that_it_names(scene) {
        let (bot, lead) = (Person::new(), scene.key().to_hex());
        let elsewhere = scene.elsewhere(&[&["M", &lead]]);
        let copy = scene.listing(&bot, &[&["M", &lead]]);
        let state = scene.state(&scene.owner, 1, None);
        assert_eq!(scene.server.send(&copy).await, Said::Purgatory);
        assert_eq!(scene.server.send(&elsewhere).await, Said::Taken);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        let commit = scene.commits[1].clone();
        assert!(scene.server.push(bot.public_key(), D, &[("refs/heads/main", Some(&commit))]).await);
        assert!(scene.server.serves(&copy).await && scene.server.serves(&state).await);
        assert_eq!(scene.server.refs(bot.public_key(), D).await, scene.refs_at(1));
        // The lead's word is enough from then on.
        let rewound = scene.state(&scene.owner, 0, None);
        assert_eq!(scene.server.send(&rewound).await, Said::Taken);
        assert_eq!(scene.server.refs(bot.public_key(), D).await, scene.refs_at(0));
    }

    a_lead_who_takes_the_server_off_the_list_is_not_heard_at_first(scene) {
        let (bot, lead) = (Person::new(), scene.key().to_hex());
        let listed = scene.listing(&scene.owner, &[&["M", &lead]]);
        let state = scene.state(&scene.owner, 1, None);
        assert_eq!(scene.server.send(&listed).await, Said::Purgatory);
        assert_eq!(scene.server.send(&state).await, Said::Purgatory);
        assert!(scene.push_main(1).await);
        assert!(scene.server.serves(&listed).await && scene.server.serves(&state).await);
        let elsewhere = scene.elsewhere(&[&["M", &lead]]);
        let copy = scene.listing(&bot, &[&["M", &lead]]);
        scene.server.send(&copy).await;
        assert!(is_refused(&scene.server.send(&elsewhere).await, "must list service"));
        // Nor is the announcement that it had served any more; the state is, since the copy is there.
        assert!(scene.server.withholds(&listed).await && scene.server.serves(&state).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
        // Said once more it is taken, since the copy introduces it; and the lead's word counts again.
        assert_eq!(scene.server.send(&elsewhere).await, Said::Taken);
        assert!(scene.server.serves(&elsewhere).await && scene.server.serves(&copy).await);
        assert_eq!(scene.server.refs(bot.public_key(), D).await, scene.refs_at(1));
        let newer = scene.state(&scene.owner, 2, None);
        assert_eq!(scene.server.send(&newer).await, Said::Purgatory);
    }

    an_owner_who_takes_the_server_off_the_list_is_left(scene) {
        let (listed, state) = scene.published().await;
        let a = scene.coordinate();
        let issue = Person::new().sign(1621, "", &[&["a", &a]]);
        assert_eq!(scene.server.send(&issue).await, Said::Taken);
        let reply = Person::new().sign(1111, "", &[&["E", &issue.id.to_hex()], &["e", &issue.id.to_hex()]]);
        assert_eq!(scene.server.send(&reply).await, Said::Taken);
        let elsewhere = scene.elsewhere(&[]);
        assert!(is_refused(&scene.server.send(&elsewhere).await, "must list service"));
        assert!(scene.server.withholds(&listed).await && scene.server.withholds(&state).await);
        assert!(scene.server.withholds(&issue).await && scene.server.withholds(&reply).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
        let later = Person::new().sign(1621, "", &[&["a", &a]]);
        assert!(is_refused(&scene.server.send(&later).await, "restricted:"));
        let newer = scene.state(&scene.owner, 2, None);
        assert!(is_refused(&scene.server.send(&newer).await, "no announcement exists"));
        assert!(!scene.push_main(2).await);
        // Listed again, it is as it was.
        let back = scene.listing(&scene.owner, &[]);
        assert_eq!(scene.server.send(&back).await, Said::Taken);
        assert!(scene.server.serves(&back).await);
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(1));
        assert!(scene.server.serves(&state).await && scene.server.serves(&issue).await);
        assert!(scene.server.serves(&reply).await);
        assert_eq!(scene.server.send(&newer).await, Said::Purgatory);
        assert!(scene.push_main(2).await && scene.server.serves(&newer).await);
    }

    what_takes_the_server_off_the_list_is_taken_the_second_time_where_a_copy_names_its_author(scene) {
        let (bot, owner_hex) = (Person::new(), scene.key().to_hex());
        let (listed, state) = scene.published().await;
        let a = scene.coordinate();
        let issue = Person::new().sign(1621, "", &[&["a", &a]]);
        assert_eq!(scene.server.send(&issue).await, Said::Taken);
        let copy = scene.listing(&bot, &[&["maintainers", &owner_hex]]);
        let copied = scene.state(&bot, 1, None);
        assert_eq!(scene.server.send(&copy).await, Said::Purgatory);
        assert_eq!(scene.server.send(&copied).await, Said::Taken, "its git data is there");
        let elsewhere = scene.elsewhere(&[]);
        assert!(is_refused(&scene.server.send(&elsewhere).await, "must list service"));
        assert!(scene.server.withholds(&listed).await && scene.server.serves(&state).await);
        assert!(scene.server.withholds(&issue).await, "it went with the repository");
        assert!(is_refused(&scene.server.send(&issue).await, "restricted:"));
        // By then it is over with the repository; taking the announcement brings that back.
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
        assert_eq!(scene.server.send(&elsewhere).await, Said::Taken);
        assert!(scene.server.serves(&elsewhere).await && scene.server.serves(&copied).await);
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(1));
        assert!(scene.server.serves(&issue).await);
        assert_eq!(scene.server.send(&issue).await, Said::Taken);
        assert!(scene.server.serves(&issue).await);
        assert_eq!(scene.server.refs(bot.public_key(), D).await, scene.refs_at(1));
    }

    // The trap for whoever takes a served state for a proof.
    an_owner_who_lists_it_at_last_finds_an_empty_repository(scene) {
        let bot = Person::new();
        let elsewhere = scene.elsewhere(&[]);
        let state = scene.state(&scene.owner, 1, None);
        let copied = scene.copied_by(&bot).await;
        assert!(scene.server.serves(&copied).await);
        assert_eq!(scene.server.send(&elsewhere).await, Said::Taken);
        assert_eq!(scene.server.send(&state).await, Said::Taken);
        assert!(scene.server.serves(&state).await);
        // Now the owner lists the server.
        let listed = scene.listing(&scene.owner, &[]);
        assert_eq!(scene.server.send(&listed).await, Said::Taken);
        assert!(scene.server.serves(&listed).await && scene.server.serves(&state).await);
        let key = scene.key();
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
        // The same state changes nothing any more; a newer one brings the repository into line.
        assert_eq!(scene.server.send(&state).await, Said::Taken);
        assert_eq!(scene.server.refs(key, D).await, Refs::new());
        assert!(!scene.push_main(1).await);
        let newer = scene.state(&scene.owner, 0, None);
        assert_eq!(scene.server.send(&newer).await, Said::Taken);
        assert_eq!(scene.server.refs(key, D).await, scene.refs_at(0));
    }
}
