//! Many repositories on real servers, without the hours that it would take to publish them.
//!
//! A server takes 60 events a minute on one connection, and with each it looks at all that it has. So one author's
//! repositories are published as they should be; the others' are laid into the data of the server while it is stopped:
//! the events into its database, which is the same as ours, and copies of the git folders. It checks both when it
//! comes back, and must then serve every state.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use grasp_mirror_testkit::{Announcement, Line, Person, Server, Work, look, tools};
use nostr::{event::Event, filter::Filter, key::PublicKey, nips::nip19::ToBech32};
use nostr_database::NostrDatabase;
use nostr_lmdb::NostrLmdb;

/// How many servers have all repositories.
pub const SERVERS: usize = 3;
const AUTHORS: usize = 20;
/// What is a day old is not news; what is of the last hours is asked for twice, as all of this would be.
const SIGNED_SECS_AGO: u64 = 24 * 3_600;
/// A server takes 60 events a minute on one connection.
const REPOSITORIES_PER_LINE: usize = 25;
/// Connections that publish at the same time.
const LINES: usize = 8;
/// What a server logs when it has looked at all repositories after a start.
const CHECKED: &str = "Git authorization-integrity startup pass completed";
/// On a busy machine.
const CHECKED_WITHIN: Duration = Duration::from_secs(900);

/// Three servers with the same repositories, each behind a proxy that counts.
pub struct Stage {
    pub servers: Vec<Server>,
    pub authors: Vec<Person>,
    names: Vec<String>,
}

impl Stage {
    /// At least so many repositories on each server.
    pub async fn set(repos: usize) -> Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(Server::builder().behind_proxy().start().await);
        }
        let authors: Vec<Person> = (0..AUTHORS).map(|_| Person::new()).collect();
        authors.iter().for_each(|author| author.signed_ago(SIGNED_SECS_AGO));
        let names = (0..repos.div_ceil(AUTHORS)).map(|number| format!("repository-{number}")).collect();
        let mut stage = Self { servers, authors, names };
        let laid = stage.publish().await?;
        let (first, others) = stage.servers.split_first_mut().context("no servers")?;
        first.stop().await;
        lay(first, &stage.authors, &laid).await?;
        for other in others {
            other.stop().await;
            for folder in ["git", "relay"] {
                fs::remove_dir_all(other.data().join(folder))?;
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(first.data().join(folder)).arg(other.data());
                tools::must(copy).await;
            }
            // Repositories of one name share their objects by absolute paths.
            let paths = format!("s|{}|{}|", first.data().display(), other.data().display());
            let mut adapt = Command::new("find");
            adapt.arg(other.data().join("git")).args(["-name", "alternates", "-exec", "sed", "-i", &paths]);
            adapt.args(["{}", "+"]);
            tools::must(adapt).await;
            other.resume().await;
        }
        first.resume().await;
        for server in &stage.servers {
            look::wait_within(CHECKED_WITHIN, "the server has checked all", async || {
                server.log().matches(CHECKED).count() == 2
            })
            .await;
            let mut served = 0;
            for author in &stage.authors {
                let states = Filter::new().kind(30618.into()).author(author.public_key());
                served += server.served(states).await.len();
            }
            ensure!(served == stage.repos(), "{} serves {served} of {} states", server.url(), stage.repos());
        }
        Ok(stage)
    }

    /// How many there are.
    pub fn repos(&self) -> usize {
        self.authors.len() * self.names.len()
    }

    /// Every mirror.
    pub fn urls(&self) -> Vec<String> {
        let repositories =
            self.names.iter().flat_map(|name| self.authors.iter().map(move |author| (name, author)));
        repositories
            .flat_map(|(name, author)| {
                self.servers.iter().map(move |server| server.repo_url(&author.public_key(), name))
            })
            .collect()
    }

    /// Publishes the first author's repositories on the first server; returns the events of all the others.
    async fn publish(&self) -> Result<Vec<Event>> {
        let home = self.servers.first().context("no servers")?;
        let mut works = Vec::new();
        for name in &self.names {
            let work = Work::new();
            work.commit("name", name);
            work.tag("v1");
            works.push((name.as_str(), work));
        }
        let (first, others) = self.authors.split_first().context("no authors")?;
        let parts = works.chunks(REPOSITORIES_PER_LINE);
        let parts = stream::iter(parts).map(|some| self.publish_some(first, some, home));
        parts.buffer_unordered(LINES).try_collect::<()>().await?;
        let rest =
            others.iter().flat_map(|author| works.iter().map(move |(name, work)| (author, *name, work)));
        Ok(rest.flat_map(|(author, name, work)| self.events(author, name, work)).collect())
    }

    async fn publish_some(&self, author: &Person, works: &[(&str, Work)], home: &Server) -> Result<()> {
        let line = Line::open(home).await;
        for (name, work) in works {
            for event in self.events(author, name, work) {
                line.send(&event).await.expect_accepted();
            }
            let url = home.repo_url(&author.public_key(), name);
            work.push_all(&url).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// Announcement and state.
    fn events(&self, author: &Person, name: &str, work: &Work) -> [Event; 2] {
        let announcement = Announcement::new(author.public_key(), name);
        let announcement = self.servers.iter().fold(announcement, Announcement::at);
        let refs = work.refs();
        let mut tags = vec![["d", name], ["HEAD", "ref: refs/heads/main"]];
        tags.extend(refs.iter().map(|(name, id)| [name.as_str(), id.as_str()]));
        let tags: Vec<&[&str]> = tags.iter().map(<[&str; 2]>::as_slice).collect();
        [author.sign_announcement(announcement), author.sign(30618, "", &tags)]
    }
}

/// Gives a server that is stopped all that the others signed, and their git folders, which are as the first one's.
async fn lay(server: &Server, authors: &[Person], events: &[Event]) -> Result<()> {
    let database = NostrLmdb::open(server.data().join("relay")).await?;
    let saves = stream::iter(events).map(|event| async {
        let status = database.save_event(event).await?;
        ensure!(status.is_success(), "the server's database says {status:?}");
        Ok(())
    });
    saves.buffer_unordered(events.len().max(1)).try_collect::<()>().await?;
    drop(database);
    let folder = |author: &PublicKey| Ok::<_, anyhow::Error>(server.git_folder().join(author.to_bech32()?));
    let (first, others) = authors.split_first().context("no authors")?;
    for author in others {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(folder(&first.public_key())?).arg(folder(&author.public_key())?);
        tools::must(copy).await;
    }
    Ok(())
}
