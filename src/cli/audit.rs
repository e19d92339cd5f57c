//! `audit`: checks what another bot says of its mirrors. It needs no configuration, key or data folder.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{bail, ensure};
use clap::Args;
use grasp_mirror::{
    config::{Config, Network},
    cycle::{Inquiry, World},
    report::tables,
    store::Store,
};
use nostr::prelude::{FromBech32, Keys, Nip19, PublicKey, RelayUrl};

use super::{now, runtime};
use crate::{Context, Outcome};

/// How long a server may be silent, and take in all: nobody waits for long in front of a terminal.
const STALL: Duration = Duration::from_secs(20);
const TOTAL: Duration = Duration::from_secs(60);

/// What to check, and where to look for the report.
#[derive(Clone, Debug, Args)]
pub(crate) struct Audited {
    /// The bot: npub1…, nprofile1… or its key in hex
    bot: String,
    /// A relay that has the report, in place of the usual relays and index relays
    #[arg(long = "relay", value_name = "URL")]
    relays: Vec<String>,
    /// Check so many mirrors, chosen at random [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    sample: Option<u16>,
    /// Also use addresses inside your own network that the report or other events name
    #[arg(long)]
    allow_private_addresses: bool,
}

/// Finds the report, checks it, and prints what came of each claim.
pub(crate) fn audit(context: &Context, audited: &Audited) -> anyhow::Result<Outcome> {
    let (bot, hints) = named(&audited.bot)?;
    let mut config = Config {
        network: Network { allow_private_addresses: audited.allow_private_addresses },
        ..Config::default()
    };
    config.limits.stall_timeout = STALL;
    config.limits.total_timeout = TOTAL;
    let mut relays = Vec::new();
    for relay in &audited.relays {
        match RelayUrl::parse(relay) {
            Ok(relay) => relays.push(relay),
            Err(_) => bail!("--relay {relay:?} is no address like wss://host"),
        }
    }
    if !relays.is_empty() {
        config.bot.index_relays = Vec::new();
        config.bot.relays = relays;
    }
    // What servers and relays say is kept as long as this takes.
    let folder = tempfile::tempdir()?;
    config.bot.data_dir = folder.path().to_owned();
    let inquiry = Inquiry { bot, hints, sample: audited.sample.map(usize::from) };
    let mut audit = runtime()?.block_on(async {
        let store = Store::open(folder.path()).await?;
        // Nobody is to know who asks.
        let mut world = World::new(&config, &Keys::generate(), &store)?;
        anyhow::Ok(Box::pin(world.audit(inquiry)).await?)
    })?;
    // There is no configuration here.
    let setting = "set allow_private_addresses under [network] to use it";
    for reason in audit.claims.iter_mut().filter_map(|claim| claim.reason.as_mut()) {
        *reason = reason.replace(setting, "give --allow-private-addresses to use it");
    }
    let mut out = io::stdout().lock();
    if context.json {
        writeln!(out, "{}", serde_json::to_string(&audit)?)?;
    } else {
        writeln!(out, "{}", tables::audit(&audit, now()))?;
    }
    let nothing = audit.totals.claims > 0 && audit.totals.unchecked == audit.totals.claims;
    ensure!(!audit.is_good() || !nothing, "none of the claims could be checked");
    Ok(if audit.is_good() { Outcome::Good } else { Outcome::NotInSync })
}

/// The bot's key, and the relays that its name hints at (NIP-19).
fn named(text: &str) -> anyhow::Result<(PublicKey, Vec<RelayUrl>)> {
    let word = text.trim().strip_prefix("nostr:").unwrap_or(text.trim());
    let (key, hints) = match (PublicKey::from_hex(word), Nip19::from_bech32(word)) {
        (Ok(key), _) | (_, Ok(Nip19::Pubkey(key))) => (key, Vec::new()),
        (_, Ok(Nip19::Profile(profile))) => (profile.public_key, profile.relays),
        _ if word.to_lowercase().contains("nsec1") => {
            bail!("that is a secret key; whoever reads it can use it. What is wanted is the bot's npub")
        }
        _ => bail!("that is no npub, nprofile or public key in hex"),
    };
    ensure!(key.xonly().is_ok(), "that is no public key");
    Ok((key, hints))
}
