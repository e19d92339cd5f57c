//! Connections end that nobody has used for long: relays that people, announcements and servers named once are many.

use std::{sync::Arc, time::Duration};

use nostr::prelude::RelayUrl;

use super::{Relays, link::Link};

/// For how long a connection is kept that nobody uses; longer than it is usually from one cycle to the next.
const KEPT: Duration = Duration::from_secs(2 * 3_600);

impl Relays {
    /// Closes connections that nobody uses and nobody has asked for of late.
    pub async fn close_idle(&self) {
        let is_idle = |link: &Arc<Link>| Arc::strong_count(link) == 1 && link.last_asked_for() >= KEPT;
        // One that is asked for again meanwhile is made anew, after this.
        let _making = self.making.lock().await;
        let idle: Vec<RelayUrl> =
            self.links().extract_if(|_, link| is_idle(link)).map(|(relay, _)| relay).collect();
        for relay in idle {
            self.close(&relay).await;
        }
    }

    /// Closes the connection to `relay` and forgets it.
    pub async fn leave(&self, relay: &RelayUrl) {
        let _making = self.making.lock().await;
        if self.links().remove(relay).is_some() {
            self.close(relay).await;
        }
    }

    async fn close(&self, relay: &RelayUrl) {
        tracing::debug!(%relay, "its connection is closed");
        // It is there, since its link was made from it.
        let _ = self.client.remove_relay(relay).force().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::prelude::Keys;
    use tokio::time::advance;

    use super::*;
    use crate::{config::Config, cycle::guard, relay::Limits};

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_for_long_is_closed_and_what_is_in_use_stays() {
        let limits = Limits::waiting(Duration::from_secs(1));
        let relays = Relays::that_keep_nothing(Arc::new(guard(&Config::default())), Keys::generate(), limits);
        let [followed, asked, left] = ["followed", "asked", "left"]
            .map(|name| RelayUrl::parse(&format!("wss://{name}.example")).unwrap());
        let open = || {
            let mut open: Vec<RelayUrl> = relays.links().keys().cloned().collect();
            open.sort();
            open
        };
        let following = relays.link(&followed).await.unwrap();
        for relay in [&asked, &left] {
            relays.link(relay).await.unwrap();
        }
        advance(KEPT - Duration::from_secs(1)).await;
        relays.start_over().await;
        assert_eq!(open().len(), 3);
        relays.link(&asked).await.unwrap();
        advance(Duration::from_secs(1)).await;
        relays.start_over().await;
        assert_eq!(open(), [asked.clone(), followed.clone()]);
        assert_eq!(relays.client.relays().await.len(), 2, "nor is it kept by the library");
        drop(following);
        advance(KEPT).await;
        relays.start_over().await;
        assert!(open().is_empty());
        relays.link(&asked).await.unwrap();
        relays.leave(&asked).await;
        assert!(open().is_empty() && relays.client.relays().await.is_empty());
    }
}
