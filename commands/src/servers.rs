//! `servers`: the GRASP servers and how they are.

use crate::{
    Command, ParseError, Usage, Words, clean,
    text::{count, lines},
};

pub(crate) const USAGE: Usage = Usage { name: "servers", args: "", about: "the servers I mirror to" };

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host, port and path.
    pub host: String,
    /// Whether it is mirrored to at all.
    pub used: bool,
    /// Whether it answered when last asked.
    pub reachable: bool,
    /// Why it is not used or not reachable, if so.
    pub reason: Option<String>,
    /// Mirrors wanted there.
    pub mirrors: usize,
    /// Those in sync.
    pub in_sync: usize,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::Servers)
}

/// One line a server.
#[must_use]
pub fn reply(servers: &[Server]) -> String {
    if servers.is_empty() {
        return "I know no servers. They belong in config.toml, [servers] known.".to_owned();
    }
    let each = servers.iter().map(|server| {
        let Server { used, reachable, mirrors, in_sync, .. } = server;
        let (sign, state) = match (used, reachable) {
            (false, _) => ("-", "not used".to_owned()),
            (true, false) => ("!", "not reachable".to_owned()),
            (true, true) => {
                let sign = if in_sync == mirrors { "✓" } else { "!" };
                (sign, format!("{in_sync} of {mirrors} in sync"))
            }
        };
        let reason =
            server.reason.as_deref().map_or(String::new(), |reason| format!(": {}", clean(reason, 80)));
        format!("{sign} {}: {state}{reason}", clean(&server.host, 60))
    });
    format!("{}:\n{}", count(servers.len(), "server", "servers"), lines(each, 40))
}
