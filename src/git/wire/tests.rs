//! Against git's own server, `git http-backend`, and against answers no good server gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{future::Future, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

use super::*;
use crate::{
    git::{
        Pack, Repository,
        testing::{Source, bare, check, git, refs_of, text, tips},
    },
    model::refs::{ObjectId, Refs},
};

pub(super) struct Request {
    pub(super) line: String,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        let line =
            self.headers.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }
}

/// Serves each connection one request with what `answer` makes of it.
pub(super) async fn serve<F, A>(answer: F) -> String
where
    F: Fn(Request) -> A + Send + Sync + Clone + 'static,
    A: Future<Output = Vec<u8>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                if let Some(request) = read(&mut stream).await {
                    let mut answer = answer(request).await;
                    // Said, or the client sends its next request into a connection that is being closed.
                    if let Some(status_end) = answer.windows(2).position(|two| two == b"\r\n") {
                        answer.splice(status_end..status_end, *b"\r\nConnection: close");
                    }
                    let _ = stream.write_all(&answer).await;
                }
            });
        }
    });
    format!("http://{address}")
}

pub(super) async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let mut request =
        Request { line: line.to_owned(), headers: headers.to_owned(), body: bytes.split_off(end) };
    let len: usize = request.header("content-length").parse().unwrap_or(0);
    while request.body.len() < len {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}

/// A real git server for the repositories in `root`.
async fn git_server(root: PathBuf, v2: bool) -> String {
    serve(move |request| backend(root.clone(), v2, request)).await
}

async fn backend(root: PathBuf, v2: bool, request: Request) -> Vec<u8> {
    let mut words = request.line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REMOTE_USER", "anyone")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", request.header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("GIT_PROTOCOL", if v2 { request.header("git-protocol") } else { "" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let body = request.body;
    tokio::spawn(async move { stdin.write_all(&body).await });
    let out = child.wait_with_output().await.unwrap().stdout;
    let end = out.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(out[..end].to_vec()).unwrap();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let mut answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n").into_bytes();
    answer.extend_from_slice(&out[end + 4..]);
    answer
}

pub(super) fn limits() -> Limits {
    Limits { stall: Duration::from_secs(60), total: Duration::from_secs(300), ..Limits::default() }
}

pub(super) fn client(limits: Limits) -> GitHttp {
    GitHttp::new(http_client(Duration::from_secs(60), None).unwrap(), limits)
}

pub(super) fn url(base: &str, path: &str) -> Url {
    Url::parse(&format!("{base}/{path}")).unwrap()
}

fn repository() -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&dir.path().join("name.git")).unwrap();
    (dir, repository)
}

/// Brings `refs` from `from` into `repository`.
async fn fetch(http: &GitHttp, from: &Url, repository: &Repository, refs: &Refs) {
    let haves = tips(&repository.refs().unwrap());
    let wants = repository.missing(tips(refs)).unwrap();
    let pack = http
        .fetch_pack(from, &wants, &haves, Room::up_to(1 << 30), &repository.incoming_dir())
        .await
        .unwrap();
    assert_eq!(pack.path.metadata().unwrap().len(), pack.bytes);
    repository.ingest(&pack.path).unwrap();
    repository.set_refs(refs, None, 1).unwrap();
}

/// Makes the server at `to` have exactly `refs`.
async fn push(http: &GitHttp, to: &Url, repository: &Repository, refs: &Refs) -> Pushed {
    let server = http.receive_pack_refs(to).await.unwrap();
    let commands = commands_to(&server.refs, refs);
    let wants: Vec<_> = commands.iter().filter(|it| !it.is_delete()).map(|it| it.new).collect();
    let pack = repository.pack_for(&wants, &server.haves()).unwrap();
    http.push(&server, &commands, &pack).await.unwrap()
}

#[tokio::test]
async fn from_one_git_server_to_another_and_again_after_changes() {
    for v2 in [true, false] {
        let mut source = Source::new(21);
        source.grow(8);
        let target = bare();
        let from = git_server(source.path().to_owned(), v2).await;
        let to = git_server(target.path().to_owned(), v2).await;
        let (from, to) = (url(&from, ".git"), url(&to, ""));
        let (_dir, repository) = repository();
        let http = client(limits());

        let listed = http.ls_refs(&from).await.unwrap();
        assert_eq!(listed.head.as_deref(), Some("refs/heads/main"));
        let refs: Refs =
            listed.refs.iter().filter_map(|(name, id)| Some((name.parse().ok()?, *id))).collect();
        assert_eq!(refs, source.refs());
        assert!(listed.peeled.iter().all(|(name, id)| source.id(&format!("{name}^{{}}")) == *id));

        fetch(&http, &from, &repository, &refs).await;
        push(&http, &to, &repository, &refs).await;
        check(target.path(), &refs);
        assert_eq!(push(&http, &to, &repository, &refs).await.bytes_sent, 0, "nothing is to do");

        // New commits, a rewind, a deleted branch and tag.
        source.git(&["branch", "-f", "old", "main~1"]);
        source.grow(4);
        source.git(&["branch", "-f", "main2", "main~2"]);
        if let Some(tag) = refs.keys().find(|name| !name.is_branch()) {
            source.git(&["update-ref", "-d", tag.as_str()]);
        }
        let refs = source.refs();
        fetch(&http, &from, &repository, &refs).await;
        push(&http, &to, &repository, &refs).await;
        assert_eq!(refs_of(target.path()), refs);
        check(target.path(), &refs);

        // Only refs move: an empty pack. Only deletes: none.
        let mut moved = refs.clone();
        moved.insert("refs/heads/copy".parse().unwrap(), source.id("main~1"));
        push(&http, &to, &repository, &moved).await;
        assert_eq!(refs_of(target.path()), moved);
        push(&http, &to, &repository, &refs).await;
        assert_eq!(refs_of(target.path()), refs);
    }
}

#[tokio::test]
async fn an_empty_repository_is_no_error() {
    for v2 in [true, false] {
        let target = bare();
        let at = url(&git_server(target.path().to_owned(), v2).await, "");
        let http = client(limits());
        assert!(http.ls_refs(&at).await.unwrap().refs.is_empty());
        let server = http.receive_pack_refs(&at).await.unwrap();
        assert!(server.refs.is_empty() && server.can("report-status"));
    }
}

#[tokio::test]
async fn what_the_server_does_not_have_is_refused_in_its_words() {
    let mut source = Source::new(22);
    source.commit();
    let into = tempfile::tempdir().unwrap();
    for v2 in [true, false] {
        let from = url(&git_server(source.path().to_owned(), v2).await, ".git");
        let wants = [ObjectId::Sha1([7; 20])];
        let error = client(limits())
            .fetch_pack(&from, &wants, &[], Room::up_to(1 << 30), into.path())
            .await
            .unwrap_err();
        assert!(matches!(&error, WireError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("not our ref 0707") && error.to_string().contains(from.as_str()));
        assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_refused_push_has_the_servers_words() {
    let mut source = Source::new(23);
    source.commit();
    let refs = source.refs();
    let (_dir, repository) = repository();
    let from = url(&git_server(source.path().to_owned(), true).await, ".git");
    let http = client(limits());
    fetch(&http, &from, &repository, &refs).await;

    let target = bare();
    let hook = target.path().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'not today' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let to = url(&git_server(target.path().to_owned(), true).await, "");
    let server = http.receive_pack_refs(&to).await.unwrap();
    let pack = repository.pack_for(&tips(&refs), &[]).unwrap();
    let error = http.push(&server, &commands_to(&server.refs, &refs), &pack).await.unwrap_err();
    let said = "refs/heads/main: pre-receive hook declined";
    assert!(matches!(&error, WireError::Refused { reason, .. } if reason == said), "{error}");

    // A pack that lacks what is pushed.
    std::fs::remove_file(hook).unwrap();
    let error = http.push(&server, &commands_to(&server.refs, &refs), &Pack::Empty).await.unwrap_err();
    assert!(matches!(&error, WireError::Refused { .. }), "{error}");
    assert!(refs_of(target.path()).is_empty());
}

#[tokio::test]
async fn several_servers_stream_one_pack_at_once() {
    let mut source = Source::new(24);
    source.grow(5);
    let refs = source.refs();
    let (_dir, repository) = repository();
    let http = client(limits());
    let from = url(&git_server(source.path().to_owned(), true).await, ".git");
    fetch(&http, &from, &repository, &refs).await;
    let pack = repository.pack_for(&tips(&refs), &[]).unwrap();
    let targets: Vec<_> = (0..4).map(|_| bare()).collect();
    let pushes = targets.iter().map(|target| {
        let (http, refs, pack) = (http.clone(), refs.clone(), pack.clone());
        async move {
            let to = url(&git_server(target.path().to_owned(), true).await, "");
            let server = http.receive_pack_refs(&to).await.unwrap();
            http.push(&server, &commands_to(&server.refs, &refs), &pack).await.unwrap();
        }
    });
    futures::future::join_all(pushes).await;
    for target in &targets {
        check(target.path(), &refs);
    }
}

#[tokio::test]
async fn limits_hold_while_data_comes_in() {
    let mut source = Source::new(25);
    source.grow(5);
    let base = git_server(source.path().to_owned(), true).await;
    let from = url(&base, ".git");
    let into = tempfile::tempdir().unwrap();
    let (http, wants) = (client(limits()), tips(&source.refs()));
    let error = http.fetch_pack(&from, &wants, &[], Room::up_to(1000), into.path()).await.unwrap_err();
    assert!(matches!(&error, WireError::TooLarge { limit: 1000, .. }), "{error}");
    assert!(error.to_string().contains("limits.max_repo_bytes"));
    let disk = Room { bytes: 1000, is_disk: true };
    let error = http.fetch_pack(&from, &wants, &[], disk, into.path()).await.unwrap_err();
    assert!(error.to_string().contains("limits.disk_floor_bytes"), "{error}");
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);

    source.git(&["branch", "another"]);
    let tight = client(Limits { max_refs: 1, ..limits() });
    assert!(matches!(tight.ls_refs(&from).await, Err(WireError::TooLarge { unit: "refs", .. })));
    let tight = client(Limits { max_advertisement_bytes: 50, ..limits() });
    assert!(matches!(tight.ls_refs(&from).await, Err(WireError::TooLarge { unit: "bytes", .. })));
}

#[tokio::test]
async fn answers_that_are_none() {
    let http = client(limits());
    let canned = |answer: &'static str| async move {
        let base = serve(move |_| async move { answer.as_bytes().to_vec() }).await;
        url(&base, "a.git")
    };
    let gone = canned("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(http.ls_refs(&gone).await, Err(WireError::RepositoryUnknown { .. })));
    let down = canned("HTTP/1.1 503 Unavailable\r\nContent-Length: 9\r\n\r\nback\nsoon").await;
    let error = http.receive_pack_refs(&down).await.unwrap_err();
    assert!(
        matches!(&error, WireError::Status { status: 503, reason, .. } if reason == "back soon"),
        "{error}"
    );
    let limited = canned("HTTP/1.1 429 No\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n").await;
    let error = http.ls_refs(&limited).await.unwrap_err();
    assert!(matches!(&error, WireError::Status { status: 429, retry_after_secs: Some(90), .. }), "{error}");
    let page = canned("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>").await;
    assert!(matches!(http.ls_refs(&page).await, Err(WireError::Malformed { .. })));
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\
               Content-Length: 400\r\n\r\n001e# serv";
    assert!(matches!(http.ls_refs(&canned(cut).await).await, Err(WireError::Broken { .. })));
    let loops = canned("HTTP/1.1 302 Found\r\nLocation: /a.git/info/refs\r\nContent-Length: 0\r\n\r\n").await;
    let error = http.ls_refs(&loops).await.unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url(&format!("http://{}", listener.local_addr().unwrap()), "a.git")
    };
    assert!(matches!(http.ls_refs(&closed).await, Err(WireError::Unreachable { .. })));
}

#[tokio::test]
async fn requests_follow_a_redirect_of_the_listing() {
    let mut source = Source::new(26);
    source.commit();
    let real = git_server(source.path().to_owned(), true).await;
    let moved = serve(move |request| {
        let to = format!("{real}/.git/info/refs?{}", request.line.split(['?', ' ']).nth(2).unwrap());
        async move { format!("HTTP/1.1 301 M\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes() }
    })
    .await;
    let listed = client(limits()).ls_refs(&url(&moved, "old.git")).await.unwrap();
    assert_eq!(listed.refs.len(), 1);
}

#[tokio::test]
async fn a_silent_server_costs_the_stall_limit() {
    let base = serve(|_| std::future::pending()).await;
    let http = client(Limits { stall: Duration::from_millis(300), ..limits() });
    let error = http.ls_refs(&url(&base, "a.git")).await.unwrap_err();
    assert!(matches!(error, WireError::TimedOut { stalled: true, .. }), "{error}");
}

#[tokio::test]
async fn a_slow_upload_is_not_a_stall() {
    // Reads a few bytes at a time, for longer in all than the stall limit.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = url(&format!("http://{}", listener.local_addr().unwrap()), "a.git");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut buffer, mut seen) = (vec![0; 1 << 20], 0);
        while seen < 24 << 20 {
            seen += stream.read(&mut buffer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(240)).await;
        }
        let report = "002b\u{1}000eunpack ok\n0014ok refs/heads/x\n00000000";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-result\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{report}", report.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Whatever is left of the request; closing over unread bytes would reset the connection.
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pack");
    std::fs::write(&file, vec![1; 24 << 20]).unwrap();
    // Long enough for a machine that is busy with other tests.
    let stall = Duration::from_secs(5);
    let http = client(Limits { stall, ..limits() });
    let server = Advertisement {
        url: at,
        refs: [].into(),
        also_has: Vec::new(),
        capabilities: ["report-status".to_owned(), "side-band-64k".to_owned()].into(),
    };
    let null = ObjectId::null(gix_hash::Kind::Sha1);
    let command = RefUpdate { name: "refs/heads/x".to_owned(), old: null, new: ObjectId::Sha1([1; 20]) };
    let started = std::time::Instant::now();
    let pushed = http.push(&server, &[command], &Pack::stored(&file).unwrap()).await.unwrap();
    assert!(pushed.bytes_sent > 24 << 20);
    assert!(started.elapsed() > stall, "slower than the limit for silence");
}

#[tokio::test]
async fn pull_requests_are_seen_and_left_alone() {
    let mut source = Source::new(27);
    let tip = source.commit();
    let nostr = format!("refs/nostr/{}", "ab".repeat(32));
    source.git(&["update-ref", &nostr, &tip.to_string()]);
    let at = url(&git_server(source.path().to_owned(), true).await, ".git");
    let http = client(limits());
    assert_eq!(http.ls_refs(&at).await.unwrap().refs.get(&nostr), Some(&tip));
    let server = http.receive_pack_refs(&at).await.unwrap();
    assert_eq!(server.refs.get(&nostr), Some(&tip));
    let commands = commands_to(&server.refs, &Refs::new());
    assert!(commands.iter().all(|command| command.name != nostr));
    // Pushing a pull request's ref by itself works with the same call.
    let (_dir, repository) = repository();
    fetch(&http, &at, &repository, &source.refs()).await;
    let target = bare();
    git(target.path(), &["config", "receive.denyDeletes", "false"], b"");
    let to = url(&git_server(target.path().to_owned(), true).await, "");
    let server = http.receive_pack_refs(&to).await.unwrap();
    let null = ObjectId::null(gix_hash::Kind::Sha1);
    let command = RefUpdate { name: nostr.clone(), old: null, new: tip };
    let pack = repository.pack_for(&[tip], &server.haves()).unwrap();
    http.push(&server, &[command], &pack).await.unwrap();
    assert_eq!(text(target.path(), &["rev-parse", &nostr]), tip.to_string());
}
