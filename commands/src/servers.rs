//! `servers`: the GRASP servers and how they are.

use std::fmt;

use crate::{
    Command, ParseError, Usage, Words, clean,
    text::{count, lines},
};

pub(crate) const USAGE: Usage =
    Usage { name: "servers", args: "", about: "the servers I mirror to, and how they did for 7 days" };

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host, port and path.
    pub host: String,
    /// Whether it is mirrored to at all.
    pub used: bool,
    /// Whether it answered when last asked; `None` when it was not asked yet.
    pub reachable: Option<bool>,
    /// Why it is not used or not reachable, if so.
    pub reason: Option<String>,
    /// Mirrors wanted there.
    pub mirrors: usize,
    /// Those in sync.
    pub in_sync: usize,
    /// How it did over the last seven days; `None` when it was not asked.
    pub week: Option<Week>,
}

/// How a server did over the last seven days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Week {
    /// How many of a hundred questions it answered, rounded down.
    pub answered_percent: u8,
    /// How long an answer took on average, in milliseconds; `None` without one.
    pub mean_ms: Option<u32>,
    /// Tries of mirrors that failed by its doing.
    pub failures: u32,
    /// Mirrors, or events of theirs, that it refused.
    pub refusals: u32,
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}% up", self.answered_percent)?;
        if let Some(ms) = self.mean_ms {
            write!(f, ", {ms} ms")?;
        }
        for (number, one, many) in
            [(self.failures, "failure", "failures"), (self.refusals, "refusal", "refusals")]
        {
            if number > 0 {
                write!(f, ", {}", count(number as usize, one, many))?;
            }
        }
        Ok(())
    }
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
            (true, None) => ("-", "not asked yet".to_owned()),
            (true, Some(false)) => ("!", "not reachable".to_owned()),
            (true, Some(true)) => {
                let sign = if in_sync == mirrors { "✓" } else { "!" };
                (sign, format!("{in_sync} of {mirrors} in sync"))
            }
        };
        let reason =
            server.reason.as_deref().map_or(String::new(), |reason| format!(": {}", clean(reason, 80)));
        let week = server.week.map_or(String::new(), |week| format!("; 7 days: {week}"));
        format!("{sign} {}: {state}{reason}{week}", clean(&server.host, 60))
    });
    format!("{}:\n{}", count(servers.len(), "server", "servers"), lines(each, 40))
}
