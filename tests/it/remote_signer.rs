//! A maintainer's remote signer (NIP-46): asked for what is needed and nothing else, told apart from a person who has to
//! approve, and never waited for by a cycle.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    pin::Pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use grasp_mirror_testkit::{Line, Mirror, Owner, Protocol, Server, TestRelay, look, send};
use nostr::{
    event::{Event, FinalizeEvent},
    filter::Filter,
    key::{Keys, PublicKey},
    message::MachineReadablePrefix,
    nips::{
        nip44,
        nip46::{
            NostrConnectEventBuilder, NostrConnectMessage, NostrConnectMethod, NostrConnectRequest,
            NostrConnectResponse, NostrConnectUri, ResponseResult,
        },
    },
};
use nostr_connect::signer::{NostrConnectKeys, NostrConnectRemoteSigner, NostrConnectSignerActions};
use nostr_sdk::local_relay::{LocalRelay, WritePolicy, WritePolicyResult};
use serde_json::Value;
use tokio::{sync::watch, task::AbortHandle};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const SECRET: &str = "0nce-0nly";

struct Scene {
    a: Server,
    b: Server,
    relay: TestRelay,
    owner: Owner,
}

impl Scene {
    async fn set() -> Self {
        let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
        let owner = Owner::new("hello").at_home_on(&relay);
        owner.publish(owner.announcement().at(&a), &a).await;
        Self { a, b, relay, owner }
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(BINARY).knows(&self.a).knows(&self.b).uses(&self.relay).watches(&self.owner)
    }

    fn bunker(&self, signer: &PublicKey, secret: &str) -> String {
        format!("bunker://{}?relay={}&secret={secret}", signer.to_hex(), self.relay.url())
    }

    async fn is_listed(&self) -> bool {
        let filter = Filter::new().author(self.owner.public_key()).kind(30617.into());
        let served = self.b.served(filter).await;
        let on_b = self.owner.url_at(&self.b);
        served.iter().any(|event| event.tags.iter().any(|tag| tag.as_slice().contains(&on_b)))
            && look::ls_remote(&on_b).await.contains_key("refs/heads/main")
    }

    async fn waits(&self, mirror: &Mirror) -> String {
        let repo = mirror.status_of(&self.owner.coordinate()).await;
        assert_eq!(repo["problems"][0]["status"], "awaiting_signature", "{repo:#}");
        assert!(repo["problems"][0]["since"].as_u64().is_some_and(|since| since > 1_700_000_000), "{repo:#}");
        // It is a good copy all the same.
        assert_eq!(repo["may_vanish"], 1, "{repo:#}");
        repo["problems"][0]["reason"].as_str().unwrap().to_owned()
    }
}

/// Approves everything, and notes what it was asked for.
#[derive(Clone, Default)]
struct Willing(Arc<Mutex<Vec<String>>>);

impl NostrConnectSignerActions for Willing {
    fn approve(&self, _client: &PublicKey, request: &NostrConnectRequest) -> bool {
        let asked = match request {
            NostrConnectRequest::SignEvent(event) => format!("sign {}", event.kind.as_u16()),
            other => other.method().to_string(),
        };
        self.0.lock().unwrap().push(asked);
        true
    }
}

/// nostr-connect's own signer, for the owner; ends with the handle.
fn willing(scene: &Scene, keys: Keys) -> (Willing, AbortOnDrop) {
    let keys = NostrConnectKeys::new(keys, scene.owner.keys.clone());
    let signer =
        NostrConnectRemoteSigner::new(keys, [scene.relay.url()], Some(SECRET.to_owned()), None).unwrap();
    serve(signer)
}

fn serve(signer: NostrConnectRemoteSigner) -> (Willing, AbortOnDrop) {
    let actions = Willing::default();
    let noting = actions.clone();
    let task = tokio::spawn(async move {
        signer.serve(actions).await.unwrap();
    });
    (noting, AbortOnDrop(task.abort_handle()))
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A signer that asks a person first.
struct Careful {
    keys: Keys,
    approved: watch::Sender<bool>,
    _task: AbortOnDrop,
}

impl Careful {
    /// `page` is to be opened by a person, `refuses` says no to everybody.
    async fn of(scene: &Scene, page: Option<&'static str>, refuses: Option<&'static str>) -> Self {
        let keys = Keys::generate();
        let (approved, approving) = watch::channel(false);
        let mut line = Line::open(&scene.relay).await;
        line.listen(Filter::new().kind(24133.into()).pubkey(keys.public_key())).await;
        let (signer, user, relay) = (keys.clone(), scene.owner.keys.clone(), scene.relay.url().to_owned());
        let task = tokio::spawn(async move {
            loop {
                let event = line.next_within(std::time::Duration::MAX).await;
                let json = nip44::decrypt(signer.secret_key(), &event.pubkey, &event.content).unwrap();
                let message = NostrConnectMessage::from_json(json).unwrap();
                if let NostrConnectMessage::Request { method: NostrConnectMethod::Connect, params, .. } =
                    &message
                {
                    // No more is asked to be allowed than is needed.
                    assert_eq!(params[2], "sign_event:30617,sign_event:30618");
                }
                let (id, client) = (message.id().to_owned(), event.pubkey);
                let reply = |response| {
                    let message = NostrConnectMessage::response(id.clone(), response);
                    NostrConnectEventBuilder::new(client, message).finalize(&signer).unwrap()
                };
                let result = match message.to_request().unwrap() {
                    _ if refuses.is_some() => NostrConnectResponse::with_error(refuses.unwrap_or_default()),
                    NostrConnectRequest::Connect { .. } => {
                        NostrConnectResponse::with_result(ResponseResult::Ack)
                    }
                    NostrConnectRequest::GetPublicKey => {
                        NostrConnectResponse::with_result(ResponseResult::GetPublicKey(user.public_key()))
                    }
                    NostrConnectRequest::Ping => NostrConnectResponse::with_result(ResponseResult::Pong),
                    NostrConnectRequest::SignEvent(event) => {
                        if let Some(page) = page {
                            let asks = NostrConnectResponse::new(
                                Some(ResponseResult::AuthUrl),
                                Some(page.to_owned()),
                            );
                            send(&reply(asks), relay.as_str()).await.expect_accepted();
                        }
                        let signed = reply(NostrConnectResponse::with_result(ResponseResult::SignEvent(
                            Box::new(event.finalize(&user).unwrap()),
                        )));
                        let (mut approving, relay) = (approving.clone(), relay.clone());
                        tokio::spawn(async move {
                            if approving.wait_for(|yes| *yes).await.is_ok() {
                                send(&signed, relay.as_str()).await.expect_accepted();
                            }
                        });
                        continue;
                    }
                    _ => NostrConnectResponse::with_error("not allowed"),
                };
                send(&reply(result), relay.as_str()).await.expect_accepted();
            }
        });
        Self { keys, approved, _task: AbortOnDrop(task.abort_handle()) }
    }
}

#[tokio::test]
async fn a_bunker_signs_what_is_needed_and_is_connected_to_once() {
    let scene = Scene::set().await;
    let keys = Keys::generate();
    let (asked, _signer) = willing(&scene, keys.clone());
    let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&keys.public_key(), SECRET));
    let run = mirror.run(&["mirror-once", "-vv"]).await.expect_code(0);
    assert!(scene.is_listed().await);
    assert!(!run.stderr.contains(SECRET) && !run.stdout.contains(SECRET), "{}", run.stderr);

    // A new server later: the secret is not said again.
    let c = Server::start().await;
    mirror.knows(&c).once().await.expect_code(0);
    let url = scene.owner.url_at(&c);
    assert_eq!(look::refs(&url).await, scene.owner.work.refs());
    let asked = asked.0.lock().unwrap().clone();
    let count = |what: &str| asked.iter().filter(|asked| *asked == what).count();
    assert_eq!((count("connect"), count("sign 30617")), (1, 2), "{asked:?}");
    let allowed = ["connect", "get_public_key", "ping", "sign 30617", "sign 30618"];
    assert!(asked.iter().all(|asked| allowed.contains(&asked.as_str())), "{asked:?}");
}

/// Relays keep nothing for a signer that is away, and it is asked ever less often; a resync asks it at once.
#[tokio::test]
async fn a_signer_that_is_back_is_asked_at_once_when_somebody_wants_that() {
    for is_known in [false, true] {
        let scene = Scene::set().await;
        let keys = Keys::generate();
        let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&keys.public_key(), SECRET));
        let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
        if is_known {
            let (_asked, _signer) = willing(&scene, keys.clone());
            mirror.run(&["verify"]).await.expect_code(2);
        }
        let mut daemon = mirror.daemon().await;
        daemon.wait_log("cycle done").await;
        let repo = mirror.status_of(&scene.owner.coordinate()).await;
        assert_eq!(repo["problems"][0]["status"] == "awaiting_signature", is_known, "{repo:#}");
        let (_asked, _signer) = willing(&scene, keys);
        ada.resync("resync").await;
        look::wait_until("it is listed", async || scene.is_listed().await).await;
        daemon.stop().await;
    }
}

#[tokio::test]
async fn several_signers_are_used_each_where_its_key_maintains() {
    let scene = Scene::set().await;
    let other = Owner::new("other").at_home_on(&scene.relay);
    other.publish(other.announcement().at(&scene.a), &scene.a).await;
    let keys = Keys::generate();
    let (asked, _signer) = willing(&scene, keys.clone());
    let both = format!("{},{}", other.nsec(), scene.bunker(&keys.public_key(), SECRET));
    scene.mirror().watches(&other).env("MIRROR_SIGNER", &both).once().await.expect_code(0);
    assert!(scene.is_listed().await);
    assert_eq!(look::refs(&other.url_at(&scene.b)).await, other.work.refs());
    let asked = asked.0.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|asked| *asked == "sign 30617").count(), 1, "{asked:?}");
}

#[tokio::test]
async fn a_signer_that_is_gone_is_told_apart_from_a_person_who_is_asked() {
    let scene = Scene::set().await;
    let careful = Careful::of(&scene, None, None).await;
    let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&careful.keys.public_key(), SECRET));
    mirror.once().await.expect_code(2);
    let reason = scene.waits(&mirror).await;
    assert!(reason.contains("waiting for you"), "{reason}");
    assert_eq!(look::refs(&mirror.url_at(&scene.b, "hello")).await, scene.owner.work.refs());
    let since = mirror.status_of(&scene.owner.coordinate()).await["problems"][0]["since"].clone();

    drop(careful);
    mirror.once().await.expect_code(2);
    let reason = scene.waits(&mirror).await;
    assert!(reason.contains("unreachable"), "{reason}");
    // It waits for as long as it has been waiting.
    assert_eq!(mirror.status_of(&scene.owner.coordinate()).await["problems"][0]["since"], since);
    assert!(!scene.is_listed().await);
}

/// No copy is there yet, so it is not shown as one that waits for a signature.
#[tokio::test]
async fn a_server_that_refuses_the_copy_waits_for_the_signer_too() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let b = Server::builder().env("NGIT_REPOSITORY_WHITELIST", &owner.npub()).start().await;
    owner.publish(owner.announcement().at(&a), &a).await;
    let scene = Scene { a, b, relay, owner };
    let careful = Careful::of(&scene, None, None).await;
    let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&careful.keys.public_key(), SECRET));
    mirror.once().await.expect_code(2);
    let repo = mirror.status_of(&scene.owner.coordinate()).await;
    let problem = &repo["problems"][0];
    let reason = problem["reason"].as_str().unwrap();
    assert_eq!((&problem["status"], &repo["copies"]), (&"refused".into(), &1.into()), "{repo:#}");
    assert!(reason.contains("whitelist") && reason.contains("instead: waiting for you"), "{reason}");

    careful.approved.send_replace(true);
    mirror.once().await.expect_code(0);
    assert!(scene.is_listed().await);
}

#[tokio::test]
async fn a_daemon_goes_on_meanwhile_and_goes_on_with_it_when_the_person_approves() {
    let scene = Scene::set().await;
    let careful = Careful::of(&scene, Some("https://signer.example/ok?token=t0k3n"), None).await;
    let bunker = scene.bunker(&careful.keys.public_key(), SECRET);
    let (mirror, ada) = scene.mirror().env("MIRROR_SIGNER", &bunker).commanded_at(&scene.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains("awaiting signature") && why.contains("waiting for you"), "{why}");
    // The page is for the operator alone.
    assert!(why.contains("token=t0k3n"), "{why}");
    for event in scene.relay.served(Filter::new().author(mirror.bot_pubkey()).kind(30078.into())).await {
        assert!(!event.content.contains("t0k3n"), "{}", event.content);
    }
    ada.resync("resync").await;

    // What it asked for outlives a restart, with since when.
    let since = mirror.status_of(&scene.owner.coordinate()).await["problems"][0]["since"].clone();
    daemon.kill();
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    scene.waits(&mirror).await;
    assert_eq!(mirror.status_of(&scene.owner.coordinate()).await["problems"][0]["since"], since);
    careful.approved.send_replace(true);
    look::wait_until("the server is listed", async || scene.is_listed().await).await;
    let log = daemon.stop().await;
    assert!(!log.contains("t0k3n") && !log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn nobody_is_asked_any_more_for_what_is_not_watched_any_more() {
    let scene = Scene::set().await;
    let careful = Careful::of(&scene, None, None).await;
    let bunker = scene.bunker(&careful.keys.public_key(), SECRET);
    let (mirror, ada) = scene.mirror().env("MIRROR_SIGNER", &bunker).commanded_at(&scene.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    scene.waits(&mirror).await;
    ada.answer_to(Protocol::Nip17, &format!("unwatch {}", scene.owner.npub())).await;
    daemon.wait_log("no signature is asked for any more").await;
    daemon.stop().await;
}

/// Does not let anybody ask whether the signer with these keys is there.
#[derive(Clone, Debug, Default)]
struct NoPings(Arc<OnceLock<Keys>>);

impl WritePolicy for NoPings {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        let json = self.0.get().map(|keys| nip44::decrypt(keys.secret_key(), &event.pubkey, &event.content));
        let message = json.and_then(|json| NostrConnectMessage::from_json(json.ok()?).ok());
        let is_ping =
            matches!(message, Some(NostrConnectMessage::Request { method: NostrConnectMethod::Ping, .. }));
        Box::pin(async move {
            match is_ping {
                true => WritePolicyResult::reject(MachineReadablePrefix::Blocked, "not here"),
                false => WritePolicyResult::Accept,
            }
        })
    }
}

#[tokio::test]
async fn an_answer_counts_also_where_nobody_can_ask_whether_the_signer_is_there() {
    let no_pings = NoPings::default();
    let relay = LocalRelay::builder().write_policy(no_pings.clone());
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start_as(relay));
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let scene = Scene { a, b, relay, owner };
    let careful = Careful::of(&scene, None, None).await;
    no_pings.0.set(careful.keys.clone()).unwrap();
    let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&careful.keys.public_key(), SECRET));
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    scene.waits(&mirror).await;
    careful.approved.send_replace(true);
    look::wait_until("the server is listed", async || scene.is_listed().await).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_bunker_that_refuses_is_told_by_name() {
    let scene = Scene::set().await;
    let careful = Careful::of(&scene, None, Some("unknown secret")).await;
    let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&careful.keys.public_key(), SECRET));
    let run = mirror.once().await.expect_code(0);
    let npub = nostr::nips::nip19::ToBech32::to_bech32(&careful.keys.public_key()).unwrap();
    assert!(run.stderr.contains(&npub) && run.stderr.contains("unknown secret"), "{}", run.stderr);
    assert!(run.stderr.contains("refuses") && !run.stderr.contains(SECRET), "{}", run.stderr);
}

/// What `verify` says of the only signer.
async fn verified(mirror: &Mirror, code: i32) -> String {
    let run = mirror.run(&["verify", "--json"]).await.expect_code(code);
    assert!(!run.stderr.contains(SECRET) && !run.stdout.contains(SECRET), "{}\n{}", run.stdout, run.stderr);
    let found = run.json();
    assert_eq!(
        (&found["signers"][0]["ok"], &found["ok"]),
        (&(code == 0).into(), &(code == 0).into()),
        "{found:#}"
    );
    found["signers"][0].to_string()
}

/// NIP-44 encrypts 65,535 bytes, and the event stands in the message as JSON in JSON; encrypted it is a third longer, and
/// many relays take no event of more than 64 KiB.
#[tokio::test]
async fn what_is_too_large_for_a_remote_signer_or_its_relays_is_told_and_not_asked_for_again() {
    for (quotes, says) in [(20_000, "65535 (NIP-44)"), (13_000, "exceeds maximum allowed size (65536 bytes)")]
    {
        let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
        let owner = Owner::new("hello").at_home_on(&relay);
        let odd = "\"".repeat(quotes);
        owner.publish(owner.announcement().at(&a).tag(&["x-long", &odd]), &a).await;
        let scene = Scene { a, b, relay, owner };
        let keys = Keys::generate();
        let (asked, _signer) = willing(&scene, keys.clone());
        let mirror = scene.mirror().env("MIRROR_SIGNER", &scene.bunker(&keys.public_key(), SECRET));
        let mut since = None;
        for _ in 0..2 {
            let run = mirror.once().await.expect_code(2);
            let told = run.stderr.contains("too large for a remote signer");
            assert_eq!(told, since.is_none(), "it is tried once: {}", run.stderr);
            let reason = scene.waits(&mirror).await;
            assert!(reason.starts_with("too large for the remote signer of"), "{reason}");
            assert!(reason.contains(says) && reason.contains("MIRROR_SIGNER"), "{reason}");
            let problem = mirror.status_of(&scene.owner.coordinate()).await["problems"][0].clone();
            assert_eq!(*since.get_or_insert(problem["since"].clone()), problem["since"]);
        }
        let asked = asked.0.lock().unwrap().clone();
        assert!(!asked.iter().any(|asked| asked.starts_with("sign")), "{asked:?}");
        // The key itself signs it.
        mirror.env("MIRROR_SIGNER", &scene.owner.nsec()).once().await.expect_code(0);
        assert!(scene.is_listed().await);
    }
}

#[tokio::test]
async fn verify_tries_the_signers() {
    let scene = Scene::set().await;
    let mirror = scene.mirror();
    mirror.once().await.expect_code(0);
    let keys = Keys::generate();
    let (asked, signer) = willing(&scene, keys.clone());
    let mirror = mirror.env("MIRROR_SIGNER", &scene.bunker(&keys.public_key(), SECRET));
    let found = verified(&mirror, 0).await;
    assert!(found.contains(&scene.owner.npub()), "{found}");
    let asked = asked.0.lock().unwrap().clone();
    assert!(asked.iter().all(|asked| !asked.starts_with("sign")), "{asked:?}");
    drop(signer);
    // It is known from before whom it signs for, and yet it is gone.
    let found = verified(&mirror, 2).await;
    assert!(found.contains("unreachable") && !found.contains("signs_for"), "{found}");

    let refusing = Careful::of(&scene, None, Some("unknown secret")).await;
    let mirror = mirror.env("MIRROR_SIGNER", &scene.bunker(&refusing.keys.public_key(), SECRET));
    let found = verified(&mirror, 2).await;
    assert!(found.contains("refuses to connect: unknown secret") && found.contains("bunker://"), "{found}");
    let table = mirror.run(&["verify"]).await.expect_code(2).stdout;
    assert!(table.contains("signs for") && table.contains("refuses to connect"), "{table}");
}

#[tokio::test]
async fn a_signer_is_paired_from_the_command_line() {
    let scene = Scene::set().await;
    let mirror = scene.mirror();
    let mut child = mirror.command(&["pair", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (uri, rest, child) = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        // Read to the end in time, or the child cannot write.
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
        (first["uri"].as_str().unwrap().to_owned(), rest, child)
    })
    .await
    .unwrap();
    assert!(uri.contains("perms=sign_event%3A30617%2Csign_event%3A30618"), "{uri}");
    let keys = NostrConnectKeys::new(Keys::generate(), scene.owner.keys.clone());
    let uri = NostrConnectUri::parse(&uri).unwrap();
    let (asked, _signer) = serve(NostrConnectRemoteSigner::from_uri(uri, keys, None).unwrap());
    let mut child = child;
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(rest.join().unwrap(), [serde_json::json!({ "paired": scene.owner.npub() }).to_string()]);
    mirror.once().await.expect_code(0);
    assert!(scene.is_listed().await);
    assert!(asked.0.lock().unwrap().iter().any(|asked| asked == "sign 30617"));
}

#[tokio::test]
async fn on_a_terminal_the_address_is_a_qr_code_too() {
    let scene = Scene::set().await;
    let mirror = scene.mirror();
    let pair = mirror.command(&["pair"]);
    let words = std::iter::once(pair.get_program()).chain(pair.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    // `script` gives it a terminal.
    let mut command = Command::new("script");
    command.args(["-qefc", &line.join(" "), "/dev/null"]).env_clear();
    command.envs(pair.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let shown = tokio::task::spawn_blocking(move || {
        let mut shown = String::new();
        while !shown.contains("nostrconnect://") {
            assert!(stdout.read_line(&mut shown).unwrap() > 0, "{shown}");
        }
        shown
    });
    let shown = shown.await.unwrap().replace('\r', "");
    let uri = shown.lines().find(|line| line.starts_with("nostrconnect://")).unwrap();
    let code = qrcode::QrCode::new(uri).unwrap().render::<qrcode::render::unicode::Dense1x2>().build();
    assert!(shown.contains(&code), "{shown}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The address that `grasp-mirror pair` shows before it is killed.
async fn shown_and_killed(mirror: &Mirror) -> String {
    let mut child = mirror.command(&["pair", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next().unwrap().unwrap());
    let shown: Value = serde_json::from_str(&line.await.unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    shown["uri"].as_str().unwrap().to_owned()
}

/// Shown on the command line, shown again by message, and answered when the daemon was killed and is back.
#[tokio::test]
async fn an_address_that_waits_for_its_signer_outlives_a_restart() {
    let scene = Scene::set().await;
    let (mirror, ada) = scene.mirror().commanded_at(&scene.relay).await;
    let uri = &shown_and_killed(&mirror).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("a signer may be paired").await;
    let text = ada.answer_to(Protocol::Nip17, "pair").await;
    assert!(text.contains(uri), "the same address: {text}");
    daemon.kill();
    let parsed = NostrConnectUri::parse(uri).unwrap();
    let secret = parsed.secret().unwrap().to_owned();
    let kept = std::fs::read_dir(mirror.data_dir().join("events")).unwrap().map(|file| file.unwrap().path());
    let kept: Vec<_> = kept.filter(|file| file.is_file()).collect();
    assert!(!kept.is_empty());
    for file in kept {
        let bytes = std::fs::read(&file).unwrap();
        let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "it lies open in {}", file.display());
    }

    let mut daemon = mirror.daemon().await;
    daemon.wait_log("a signer may be paired").await;
    let keys = NostrConnectKeys::new(Keys::generate(), scene.owner.keys.clone());
    let (_asked, _signer) = serve(NostrConnectRemoteSigner::from_uri(parsed, keys, None).unwrap());
    look::wait_until("it says that it is paired", async || {
        ada.heard().await.iter().any(|heard| heard.text.contains("Paired with the signer"))
    })
    .await;
    ada.resync("resync").await;
    assert!(scene.is_listed().await);
    daemon.stop().await;
    assert_ne!(shown_and_killed(&mirror).await, *uri, "it has served");
}

#[tokio::test]
async fn a_signer_is_paired_by_message() {
    let scene = Scene::set().await;
    let (mirror, ada) = scene.mirror().commanded_at(&scene.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let text = ada.answer_to(Protocol::Nip17, "pair").await;
    let uri = text.split_whitespace().find(|word| word.starts_with("nostrconnect://")).unwrap();
    let keys = NostrConnectKeys::new(Keys::generate(), scene.owner.keys.clone());
    let uri = NostrConnectUri::parse(uri).unwrap();
    let secret = uri.secret().unwrap().to_owned();
    let (_asked, _signer) = serve(NostrConnectRemoteSigner::from_uri(uri, keys, None).unwrap());
    let said = AtomicBool::new(false);
    look::wait_until("it says that it is paired", async || {
        let paired = ada.heard().await.iter().any(|heard| heard.text.contains("Paired with the signer"));
        said.fetch_or(paired, Ordering::Relaxed) || paired
    })
    .await;
    ada.resync("resync").await;
    assert!(scene.is_listed().await);
    let log = daemon.stop().await;
    assert!(!log.contains(&secret), "{log}");
}
