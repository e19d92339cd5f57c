//! What an order to allow or deny comes to, and which rules contradict each other.

use std::collections::BTreeSet;

use grasp_mirror_commands::{allow::Allowed, count, deny::Denied};

use crate::model::{
    policy::{Blocked, Policy, Rule, Said, table},
    server::ServerUrl,
};

/// The most rules by message: they go into one event, and relays take 64 KiB.
const MAX_RULES: usize = 200;

/// The longest identifier in one, in bytes.
const LONGEST: usize = 256;

/// What becomes of `said` when somebody denies `rule`, and what to answer; `repos` are the repositories it is about.
#[must_use]
pub fn deny(policy: &Policy, rule: &Rule, repos: Option<usize>) -> (Option<Said>, Denied) {
    match policy.denies(rule) {
        Err(Blocked::Said(_)) => return (None, Denied::Already),
        Err(_) => return (None, Denied::ByConfig),
        Ok(()) => {}
    }
    let mut said = policy.said.clone();
    if said.deny.iter().count() >= MAX_RULES || rule.to_string().len() > LONGEST + 100 {
        return (None, Denied::TooMany);
    }
    said.allow.remove(rule);
    said.deny.insert(rule.clone());
    (Some(said), Denied::Added { repos })
}

/// What becomes of `said` when somebody allows `rule`, and what to answer.
#[must_use]
pub fn allow(policy: &Policy, rule: &Rule) -> (Option<Said>, Allowed) {
    let mut said = policy.said.clone();
    let taken_back = said.deny.contains(rule);
    said.deny.remove(rule);
    let outcome = match admitted(&policy.obeying(&said), rule) {
        Ok(()) if taken_back => Allowed::TakenBack,
        Ok(()) => Allowed::Already,
        Err(Blocked::Denied(by)) if *by == *rule => Allowed::ByConfig,
        Err(Blocked::Denied(by)) => Allowed::StillByConfig(by.to_string()),
        Err(Blocked::Said(by)) => Allowed::StillByMessage(by.to_string()),
        Err(Blocked::NotAllowed(_)) if said.allow.iter().count() < MAX_RULES => {
            said.allow.insert(rule.clone());
            Allowed::Beside
        }
        Err(Blocked::NotAllowed(_)) => Allowed::Already,
    };
    ((said != policy.said).then_some(said), outcome)
}

/// Whether `rule` is allowed (`permit`), or denied, as somebody wanted.
#[must_use]
pub fn stands(policy: &Policy, rule: &Rule, permit: bool) -> bool {
    if permit { admitted(policy, rule).is_ok() } else { policy.denies(rule).is_err() }
}

fn admitted(policy: &Policy, rule: &Rule) -> Result<(), Blocked> {
    match rule {
        Rule::Repository(repository) => policy.admits(repository),
        Rule::Server(server) => policy.admits_server(server),
        Rule::Author(author) => {
            policy.denies(rule)?;
            let lists = [&policy.allow, &policy.said.allow];
            let open = policy.allow.authors.is_empty() && policy.allow.repositories.is_empty();
            let named = lists.into_iter().any(|allow| allow.authors.contains(author));
            if open || named { Ok(()) } else { Err(Blocked::NotAllowed(Box::new(rule.clone()))) }
        }
    }
}

/// Rules that contradict each other or can never hold, one line each. `servers` are those that are mirrored to,
/// `copies_wanted` is what is wanted as a rule; with `may_find_more` there may be more servers.
#[must_use]
pub fn contradictions(
    policy: &Policy,
    servers: &BTreeSet<ServerUrl>,
    copies_wanted: Option<u32>,
    may_find_more: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let left: BTreeSet<&ServerUrl> =
        servers.iter().filter(|server| policy.admits_server(server).is_ok()).collect();
    if left.is_empty() && !servers.is_empty() && !may_find_more {
        found.push("[policy] leaves none of the servers to mirror to".to_owned());
    }
    let too_many = |whose: &str, wanted: u32, there: usize| {
        let few = u32::try_from(there).unwrap_or(u32::MAX) < wanted;
        let there = count(there, "server", "servers");
        (few && !may_find_more)
            .then(|| format!("{whose} copies_wanted = {wanted}, but there may be copies on {there} only"))
    };
    found.extend(copies_wanted.and_then(|wanted| too_many("[mirror]", wanted, left.len())));
    for rule in policy.allow.iter().chain(policy.said.allow.iter()) {
        if let Err(blocked @ (Blocked::Denied(_) | Blocked::Said(_))) = admitted(policy, &rule) {
            found.push(format!("{rule} is allowed to no effect: {blocked}"));
        }
    }
    for (rule, exception) in policy.exceptions() {
        let name = table(&rule);
        match (admitted(policy, &rule), &rule) {
            // Some of the author's repositories may be allowed by themselves.
            (Err(Blocked::NotAllowed(_)), Rule::Author(author))
                if policy.allow.repositories.iter().any(|repository| repository.owner == *author) => {}
            (Err(blocked), _) => found.push(format!("{name} is of no use: {blocked}")),
            (Ok(()), _) => {}
        }
        let own = exception.servers.as_ref();
        for server in own.into_iter().flatten() {
            if let Err(blocked) = policy.admits_server(server) {
                found.push(format!("{name} servers names {server} to no effect: {blocked}"));
            }
        }
        let there = own.map_or(left.len(), |own| {
            own.iter().filter(|server| policy.admits_server(server).is_ok()).count()
        });
        if own.is_some() && there == 0 {
            found.push(format!("{name} servers leaves no server to mirror to"));
        } else if let Some(wanted) = exception.copies_wanted {
            let more = own.is_none() && may_find_more;
            found.extend(too_many(&name, wanted, there).filter(|_| !more));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{super::testing::server, *};
    use crate::model::{coordinate::Coordinate, policy::Exception};

    #[test]
    fn a_message_takes_back_what_a_message_denied_and_nothing_else() {
        let alice = Keys::generate().public_key();
        let (author, repository) = (Rule::Author(alice), Rule::Repository(Coordinate::new(alice, "x")));
        let mut policy = Policy::default();
        assert_eq!(allow(&policy, &author), (None, Allowed::Already));
        for rule in [&author, &repository] {
            let (said, denied) = deny(&policy, rule, Some(1));
            assert_eq!(denied, Denied::Added { repos: Some(1) });
            policy.said = said.unwrap();
            assert_eq!(deny(&policy, rule, None), (None, Denied::Already));
        }
        let (said, allowed) = allow(&policy, &repository);
        assert_eq!(allowed, Allowed::StillByMessage(author.to_string()));
        policy.said = said.unwrap();
        let (said, allowed) = allow(&policy, &author);
        assert_eq!(allowed, Allowed::TakenBack);
        assert_eq!(said, Some(Said::default()));

        policy.said = Said::default();
        policy.deny.insert(author.clone());
        assert_eq!(deny(&policy, &author, None), (None, Denied::ByConfig));
        assert_eq!(allow(&policy, &author), (None, Allowed::ByConfig));
        assert_eq!(allow(&policy, &repository), (None, Allowed::StillByConfig(author.to_string())));

        // Beside a list of the operator's, and off it again.
        let bob = Rule::Author(Keys::generate().public_key());
        policy.allow.insert(Rule::Author(Keys::generate().public_key()));
        let (said, allowed) = allow(&policy, &bob);
        assert_eq!(allowed, Allowed::Beside);
        policy.said = said.unwrap();
        assert_eq!(admitted(&policy, &bob), Ok(()));
        policy.said = deny(&policy, &bob, None).0.unwrap();
        assert!(policy.said.allow.iter().next().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever was said before: after a denial it is denied, and after a permission it is mirrored unless
        /// something else is in the way, which the answer names.
        #[test]
        fn the_last_word_counts(orders in proptest::collection::vec((any::<bool>(), 0..4_usize), 1..12), config in 0..16_u8) {
            let alice = Keys::generate().public_key();
            let rules = [
                Rule::Author(alice),
                Rule::Repository(Coordinate::new(alice, "x")),
                Rule::Server(server("a")),
                Rule::Server(server("b")),
            ];
            let mut policy = Policy::default();
            let denied = rules.iter().enumerate().filter(|(n, _)| config >> n & 1 == 1);
            denied.for_each(|(_, rule)| policy.deny.insert(rule.clone()));
            for (permit, number) in orders {
                let rule = rules.get(number).unwrap();
                if permit {
                    let (said, outcome) = allow(&policy, rule);
                    policy.said = said.unwrap_or(policy.said);
                    let free = matches!(outcome, Allowed::TakenBack | Allowed::Already | Allowed::Beside);
                    prop_assert_eq!(admitted(&policy, rule).is_ok(), free, "{:?}", outcome);
                } else {
                    policy.said = deny(&policy, rule, None).0.unwrap_or(policy.said);
                    prop_assert!(policy.denies(rule).is_err());
                }
            }
        }
    }

    #[test]
    fn contradictions_are_named() {
        let alice = nostr::prelude::PublicKey::from_hex(
            "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        )
        .unwrap();
        let servers = BTreeSet::from([server("a"), server("b")]);
        let mut policy = Policy::default();
        let told = |policy: &Policy, copies| contradictions(policy, &servers, copies, false).join("\n");
        assert_eq!(told(&policy, Some(2)), "");
        insta::assert_snapshot!(told(&policy, Some(3)), @"[mirror] copies_wanted = 3, but there may be copies on 2 servers only");

        let repository = Coordinate::new(alice, "x");
        policy.deny.insert(Rule::Author(alice));
        policy.deny.insert(Rule::Server(server("b")));
        policy.allow.insert(Rule::Repository(repository.clone()));
        let servers_of = |names: &[&str]| Some(names.iter().map(|name| server(name)).collect());
        let own =
            Exception { servers: servers_of(&["b", "c"]), copies_wanted: Some(2), ..Exception::default() };
        policy.repositories.insert(repository, own);
        insta::assert_snapshot!(told(&policy, None), @r#"
        30617:79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798:x is allowed to no effect: [policy] deny names npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d
        [policy."30617:79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798:x"] is of no use: [policy] deny names npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d
        [policy."30617:79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798:x"] servers names wss://b.example to no effect: [policy] deny names wss://b.example
        [policy."30617:79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798:x"] copies_wanted = 2, but there may be copies on 1 server only
        "#);
        policy.deny.insert(Rule::Server(server("a")));
        assert!(told(&policy, None).starts_with("[policy] leaves none of the servers to mirror to\n"));
    }
}
