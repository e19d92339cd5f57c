//! The part of the loop that takes over another configuration.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::time::Instant;

use super::{Daemon, follow::Follower, notify};
use crate::{
    bot::Tidings,
    config::{Config, ConfigError, Places},
    cycle::{self, Signers},
    key,
};

impl Daemon {
    /// Reads the configuration again; a bad one is reported, and the old one stays.
    pub(super) async fn reload(&mut self, reload: impl Fn() -> Result<Config, ConfigError>) {
        let monotonic = NotifyState::monotonic_usec_now();
        notify(&[NotifyState::Reloading].into_iter().chain(monotonic.ok()).collect::<Vec<_>>());
        match reload() {
            Ok(mut config) => {
                if let Some(places) = self.met_at(&config).await {
                    config.bot.meet_at(places);
                }
                self.take_over(config, "the configuration was read again").await;
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not read again; the old one stays");
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Where the bot is met, by `config` and its own lists; `None` when these cannot be read.
    async fn met_at(&self, config: &Config) -> Option<Places> {
        let places = cycle::met_at(&config.bot.written, &self.keys, &self.store).await;
        places
            .inspect_err(|error| tracing::error!(%error, "the bot's own lists of relays were not read"))
            .ok()
    }

    /// The bot's own lists name other relays.
    pub(super) async fn move_on(&mut self) {
        let Some(places) = self.met_at(&self.config).await else { return };
        if !self.config.bot.is_met_at(&places) {
            let mut config = self.config.clone();
            config.bot.meet_at(places);
            self.take_over(config, "the bot's own lists name other relays now").await;
        }
    }

    async fn take_over(&mut self, mut config: Config, why: &str) {
        if config.bot.data_dir != self.config.bot.data_dir {
            tracing::error!("bot.data_dir changes with a restart only; the old one stays");
            config.bot.data_dir.clone_from(&self.config.bot.data_dir);
        }
        if config.http.listen != self.config.http.listen {
            tracing::error!("http.listen changes with a restart only; the old one stays");
            config.http.listen = self.config.http.listen;
        }
        match key::find(&config.environment.key, &config.bot.data_dir) {
            Ok(Some(bot)) if bot.keys.public_key() == self.keys.public_key() => {}
            Ok(_) => tracing::error!("the bot's key changes with a restart only; the old one stays"),
            Err(error) => tracing::error!(%error, "the bot's key was not read again; the old one stays"),
        }
        tracing::info!("{why}");
        if config.bot.cycle_interval != self.config.bot.cycle_interval {
            self.next_at = self.next_at.min(Instant::now() + config.bot.cycle_interval);
        }
        let signers = Arc::new(Signers::new(&config, &self.keys, &self.store, self.shared.learned()));
        match Follower::new(&config, &self.keys, &self.store, &signers, &self.shared) {
            Ok(follower) => {
                self.follower = follower;
                if let Some(settings) = &*self.doors.settings.borrow() {
                    self.follower.heed(settings);
                }
            }
            Err(error) => {
                tracing::error!(%error, "nobody can be listened to with the new configuration; the old one stays");
                return;
            }
        }
        self.signers = signers;
        self.config = config.clone();
        self.shown.reconfigure(&config);
        self.world = None;
        self.tell(Tidings::Config(Box::new(config))).await;
        self.begin_anew();
    }
}
