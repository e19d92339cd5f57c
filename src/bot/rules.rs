//! `allow` and `deny`: what may be mirrored, as it is said by message.

use grasp_mirror_commands::{Matter, allow, deny};

use super::{Bot, orders::OrderError};
use crate::{
    model::policy::{Policy, Rule},
    plan,
    report::answers,
};

impl Bot {
    /// What the operator allows and denies, by the configuration and by message.
    pub(super) fn policy(&self) -> Policy {
        self.own.config.policy.obeying(&self.settings().said)
    }

    pub(super) async fn deny(&mut self, matter: &Matter, said: String) -> Result<String, OrderError> {
        let rule = match self.find_rule(matter).await? {
            Ok(rule) => rule,
            Err(answer) => return Ok(answer),
        };
        let repos = match &rule {
            Rule::Server(_) => None,
            Rule::Repository(_) => Some(1),
            Rule::Author(author) => {
                Some(self.known().await?.iter().filter(|known| known.owner == *author).count())
            }
        };
        let (after, outcome) = plan::policy::deny(&self.policy(), &rule, repos);
        if after.is_some() {
            let config = self.own.config.clone();
            let about = rule.clone();
            self.change(said, move |settings| {
                let policy = config.policy.obeying(&settings.said);
                // What another client said in between stays.
                settings.said = plan::policy::deny(&policy, &about, None).0.unwrap_or(policy.said);
            })
            .await?;
        }
        Ok(deny::reply(&answers::rule_named(&rule), &answers::rule_written(&rule), outcome))
    }

    pub(super) async fn allow(&mut self, matter: &Matter, said: String) -> Result<String, OrderError> {
        let rule = match self.find_rule(matter).await? {
            Ok(rule) => rule,
            Err(answer) => return Ok(answer),
        };
        let (after, outcome) = plan::policy::allow(&self.policy(), &rule);
        if after.is_some() {
            let config = self.own.config.clone();
            let about = rule.clone();
            self.change(said, move |settings| {
                let policy = config.policy.obeying(&settings.said);
                settings.said = plan::policy::allow(&policy, &about).0.unwrap_or(policy.said);
            })
            .await?;
        }
        Ok(allow::reply(&answers::rule_named(&rule), &outcome))
    }

    async fn find_rule(&self, matter: &Matter) -> Result<Result<Rule, String>, OrderError> {
        let (settings, policy, report) = (self.settings(), self.policy(), self.report().await?);
        let reported = report.servers.iter().map(|server| &server.url);
        let ruled = [&policy.deny, &policy.said.deny, &policy.allow].map(|rules| &rules.servers);
        let servers = settings.servers.iter().chain(reported).chain(ruled.into_iter().flatten());
        Ok(answers::find_rule(matter, servers, &self.known().await?))
    }
}
