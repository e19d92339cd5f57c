//! `pair`: shows the address for a maintainer's remote signer, and waits for it.

use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use grasp_mirror::{cycle::Pairing, model::coordinate::npub, store::Store};
use grasp_mirror_commands::span;
use qrcode::{QrCode, render::unicode::Dense1x2};

use super::{ready_with_bot, runtime};
use crate::{Context, Outcome};

/// `pair`: also beside a running daemon, which asks the signer from its next cycle on.
pub(crate) fn pair(context: &Context) -> anyhow::Result<Outcome> {
    let ready = ready_with_bot(context)?;
    runtime()?.block_on(async {
        let store = Store::open(&ready.config.bot.data_dir).await?;
        let pairing = Pairing::new(&ready.config, &ready.bot.keys, &store).await?;
        show(context, &pairing)?;
        let paired = pairing.wait().await?;
        let user = npub(&paired.user);
        let mut out = io::stdout().lock();
        if context.json {
            writeln!(out, "{}", serde_json::json!({ "paired": user }))?;
        } else {
            writeln!(out, "\nPaired with the signer of {user}.")?;
        }
        anyhow::Ok(Outcome::Good)
    })
}

/// The address; as a QR code, too, where a person looks on.
fn show(context: &Context, pairing: &Pairing) -> anyhow::Result<()> {
    let address = pairing.address();
    let mut out = io::stdout().lock();
    if context.json {
        writeln!(out, "{}", serde_json::json!({ "uri": address }))?;
    } else {
        if out.is_terminal() {
            let code = QrCode::new(&address).context("the address does not fit into a QR code")?;
            writeln!(out, "{}\n", code.render::<Dense1x2>().build())?;
        }
        writeln!(
            out,
            "{address}\n\nGive this to the maintainer's signer (NIP-46) within {}. Whoever has it can pair, so give it to \
             nobody else.",
            span(pairing.seconds_left())
        )?;
    }
    Ok(out.flush()?)
}
