//! Killed at the very moment when its answer arrives at the relay, the bot does not answer anew: from then on it has
//! only that one answer to give.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
};

use grasp_mirror_testkit::{Daemon, Mirror, Protocol, TestRelay, look};
use nostr::{event::Event, key::PublicKey};
use nostr_sdk::local_relay::{LocalRelay, WritePolicy, WritePolicyResult};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[derive(Debug, Default)]
struct Trap {
    /// Who hears from it kills it.
    listener: OnceLock<PublicKey>,
    daemon: Mutex<Option<Daemon>>,
}

#[derive(Debug)]
struct Armed(Arc<Trap>);

impl WritePolicy for Armed {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        if event.tags.public_keys().any(|to| Some(&to) == self.0.listener.get())
            && let Some(daemon) = self.0.daemon.lock().unwrap().take()
        {
            daemon.kill();
        }
        Box::pin(async { WritePolicyResult::Accept })
    }
}

#[tokio::test]
async fn killed_when_the_answer_arrives() {
    let trap = Arc::new(Trap::default());
    let relay = TestRelay::start_as(LocalRelay::builder().write_policy(Armed(Arc::clone(&trap)))).await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    trap.listener.set(ada.public_key()).unwrap();
    let mut asked = Vec::new();
    for protocol in [Protocol::Nip17, Protocol::Nip04].repeat(3) {
        let daemon = mirror.daemon().await;
        *trap.daemon.lock().unwrap() = Some(daemon);
        asked.push(ada.ask(protocol, "version").await);
        look::wait_until("the answer arrives", async || trap.daemon.lock().unwrap().is_none()).await;
    }
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    for question in &asked {
        ada.answers(question, 1).await;
    }
    daemon.stop().await;
}
