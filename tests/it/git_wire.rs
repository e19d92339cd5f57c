//! The git edge against real `ngit-grasp` servers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;

use grasp_mirror::{
    git::{
        Pack, Repository,
        wire::{GitHttp, Limits, PushError, RefUpdate, Room, commands_to, http_client, http_client_builder},
    },
    model::refs::{ObjectId, Refs},
};
use grasp_mirror_testkit::{
    Authority, Noise, Owner, Server,
    look::{self, PATIENCE},
    tools,
};
use url::Url;

fn http() -> GitHttp {
    GitHttp::new(http_client(PATIENCE, None).unwrap(), Limits::default())
}

/// Fetches what `from` offers into `repository`.
async fn fetch(http: &GitHttp, from: &Url, repository: &Repository) -> Refs {
    let listed = http.ls_refs(from).await.unwrap();
    let refs: Refs = listed.refs.iter().filter_map(|(name, id)| Some((name.parse().ok()?, *id))).collect();
    let haves: Vec<_> = repository.refs().unwrap().into_values().collect();
    let wants = repository.missing(refs.values().copied()).unwrap();
    if !wants.is_empty() {
        let pack = http
            .fetch_pack(from, &wants, &haves, Room::up_to(1 << 30), &repository.incoming_dir())
            .await
            .unwrap();
        repository.ingest(&pack.path).unwrap();
    }
    repository.set_refs(&refs, None, 1).unwrap();
    refs
}

async fn push(http: &GitHttp, to: &Url, repository: &Repository, refs: &Refs) -> Result<u64, PushError> {
    let server = http.receive_pack_refs(to).await?;
    let commands = commands_to(&server.refs, refs);
    let wants: Vec<_> = commands.iter().filter(|it| !it.is_delete()).map(|it| it.new).collect();
    let pack = repository.pack_for(&wants, &server.haves()).unwrap();
    Ok(http.push(&server, &commands, &pack).await?.bytes_sent)
}

#[tokio::test]
async fn one_grasp_server_is_brought_to_what_another_has() {
    let (first, second) = (Server::start().await, Server::start().await);
    let owner = Owner::new("wire");
    owner.work.annotated_tag("v1");
    owner.work.branch("topic");
    let listing = owner.announcement().at(&first).at(&second);
    let published = owner.publish(listing, &first).await;
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&dir.path().join("a.git")).unwrap();
    let http = http();
    let from: Url = owner.url_at(&first).parse().unwrap();
    let to: Url = owner.url_at(&second).parse().unwrap();

    let error = push(&http, &to, &repository, &Refs::new()).await.unwrap_err();
    assert!(matches!(error, PushError::RepositoryUnknown { .. }), "{error}");

    let refs = fetch(&http, &from, &repository).await;
    second.send(&published.announcement).await.expect_accepted();
    let early = push(&http, &to, &repository, &refs).await.unwrap_err();
    assert!(early.to_string().contains("authorisation failed"), "{early}");
    println!("{early}");

    second.send(&published.state).await.expect_accepted();
    // One ref too few: refused in the server's words.
    let mut fewer = refs.clone();
    fewer.pop_last();
    let error = push(&http, &to, &repository, &fewer).await.unwrap_err();
    println!("{error}");
    assert!(
        matches!(&error, PushError::Refused { reason, .. } if reason.contains("doesn't match")),
        "{error}"
    );
    push(&http, &to, &repository, &refs).await.unwrap();
    assert_eq!(look::refs(to.as_str()).await, owner.work.refs());
    assert!(look::serves(&second, &published.state).await);

    // A new commit, a rewind, deletes: one push.
    owner.work.commit("more", "2");
    owner.work.branch("other");
    owner.work.delete_branch("topic");
    owner.work.rewind(1);
    let state = owner.update(&first).await;
    let refs = fetch(&http, &from, &repository).await;
    second.send(&state).await.expect_accepted();
    let sent = push(&http, &to, &repository, &refs).await.unwrap();
    assert!(sent < 2000, "{sent} bytes for one commit");
    assert_eq!(look::refs(to.as_str()).await, owner.work.refs());
    look::clone(to.as_str()).await;
    assert_eq!(push(&http, &to, &repository, &refs).await.unwrap(), 0);

    // A pull request's commit.
    owner.work.switch("other");
    let tip = owner.work.commit("pull", "3");
    let home = owner.work.path().to_str().unwrap().to_owned();
    let mut git = tools::git(repository.path());
    git.args(["fetch", "-q", &home, &tip]);
    assert!(git.status().unwrap().success());
    let tip: ObjectId = tip.parse().unwrap();
    let event = owner.pull_request(&owner.coordinate(), &tip.to_string(), to.as_str());
    second.send(&event).await.expect_accepted();
    let server = http.receive_pack_refs(&to).await.unwrap();
    let name = format!("refs/nostr/{}", event.id);
    let null = ObjectId::null(gix_hash::Kind::Sha1);
    let pack: Pack = repository.pack_for(&[tip], &server.haves()).unwrap();
    http.push(&server, &[RefUpdate { name: name.clone(), old: null, new: tip }], &pack).await.unwrap();
    assert_eq!(http.ls_refs(&to).await.unwrap().refs.get(&name), Some(&tip));
}

#[tokio::test]
async fn behind_a_reverse_proxy_with_http_2_one_connection_is_kept_for_all() {
    let authority = Authority::new();
    let behind = Server::builder().start_behind_nginx(&authority);
    let (first, second) = tokio::join!(Server::start(), behind);
    let owner = Owner::new("wire");
    // More than fits into the window of one stream.
    std::fs::write(owner.work.path().join("noise"), Noise::default().bytes(3 << 20)).unwrap();
    owner.work.git(&["add", "noise"]);
    owner.work.commit("more", "1");
    let published = owner.publish(owner.announcement().at(&first).at(&second), &first).await;
    for event in [&published.announcement, &published.state] {
        second.send(event).await.expect_accepted();
    }
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(authority.file()).unwrap()).unwrap();
    let client = http_client_builder(PATIENCE, None).tls_certs_only([trusted]).build().unwrap();
    let (plain, http) = (http(), GitHttp::new(client, Limits::default()));
    let from: Url = owner.url_at(&first).parse().unwrap();
    let to: Url = owner.url_at(&second).parse().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&dir.path().join("a.git")).unwrap();
    let refs = fetch(&plain, &from, &repository).await;
    assert!(push(&http, &to, &repository, &refs).await.unwrap() > 3 << 20);
    assert!(look::serves(&second, &published.state).await);
    // Many at once.
    let lists = (0..20).map(|_| http.ls_refs(&to));
    for listed in futures::future::join_all(lists).await {
        assert_eq!(listed.unwrap().refs.len(), refs.len());
    }
    let again = Repository::open_or_create(&dir.path().join("b.git")).unwrap();
    assert_eq!(fetch(&http, &to, &again).await, refs);
    look::wait_until("all that was asked is written down", async || second.nginx().requests().len() > 40)
        .await;
    let requests = second.nginx().requests();
    assert!(requests.iter().all(|line| line.starts_with("HTTP/2.0 ")), "{requests:#?}");
    let connections: BTreeSet<&str> = requests.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(connections.len(), 1, "{requests:#?}");
}
