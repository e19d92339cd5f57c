//! `allow`, `deny`: what may be mirrored, as a message to the bot would say it. A running daemon hears it from the
//! bot's relays, so nothing takes the data folder's lock.

use anyhow::anyhow;
use grasp_mirror::{model::policy::Rule, plan, report::answers};
use grasp_mirror_commands::{Matter, allow, deny};

use super::{in_terminal, ready_with_bot, runtime, say, world};
use crate::{Context, Outcome, mention};

/// `allow` (`permit`) and `deny`.
pub(crate) fn rule(context: &Context, about: &str, permit: bool) -> anyhow::Result<Outcome> {
    let matter = Matter::parse(about)?;
    let ready = ready_with_bot(context)?;
    let (rule, changed, text, good) = runtime()?.block_on(async {
        let mut world = world(&ready).await?;
        let known = world.known().await?;
        let policy = world.policy().clone();
        let ruled = [&policy.deny, &policy.said.deny, &policy.allow].map(|rules| &rules.servers);
        let servers = world.servers().chain(ruled.into_iter().flatten());
        let rule =
            answers::find_rule(&matter, servers, &known).map_err(|answer| anyhow!(in_terminal(&answer)))?;
        let named = answers::rule_named(&rule);
        let (said, text) = if permit {
            let (said, outcome) = plan::policy::allow(&policy, &rule);
            (said, allow::reply(&named, &outcome))
        } else {
            let repos = match &rule {
                Rule::Server(_) => None,
                Rule::Repository(_) => Some(1),
                Rule::Author(author) => Some(known.iter().filter(|known| known.owner == *author).count()),
            };
            let (said, outcome) = plan::policy::deny(&policy, &rule, repos);
            (said, deny::reply(&named, &answers::rule_written(&rule), outcome))
        };
        let changed = said.is_some();
        if let Some(said) = said {
            let relays = world.rule(said).await?;
            if relays == 0 {
                mention("no relay took it yet; the daemon sends it after its next cycle");
            }
        }
        let good = plan::policy::stands(world.policy(), &rule, permit);
        anyhow::Ok((rule, changed, text, good))
    })?;
    if context.json {
        say(serde_json::json!({ "rule": rule.to_string(), "changed": changed, "said": text }))?;
    } else {
        say(in_terminal(&text))?;
    }
    Ok(if good { Outcome::Good } else { Outcome::NotInSync })
}
