//! What a schedule has: the later a habit came, the fewer of the old seeds have it.

/// What a schedule has beside the oldest ones: the seeds that found something then find it without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// The bot leaves repositories in peace about which nothing is new, and looks at each in depth once a day.
    pub rests: bool,
    /// The bot leaves servers alone that were down.
    pub leaves_alone: bool,
    /// Owners name themselves as leads, and take it back.
    pub leads: bool,
    /// Cycles end before everybody had their turn.
    pub hurries: bool,
    /// Fewer copies may be wanted than there are servers, and servers are away for days.
    pub spreads: bool,
    /// Something newer is signed, and heard of, in the middle of a walk.
    pub overtakes: bool,
    /// Relays do wrong what servers do, and have the bot's lists, its questions and its answers; its disk may be lost.
    pub relays: bool,
    /// States that take most of a repository away are held.
    pub holds: bool,
    /// Servers say for how long they want to be left alone.
    pub cools_down: bool,
    /// The bot may have an owner's key, and lists servers with it.
    pub signs: bool,
    /// The bot writes down what it hears and sees for whoever comes after it, and owners list servers, or take them out,
    /// in the middle of a walk.
    pub hands_on: bool,
}

impl Habits {
    /// Those of the seeds in [`KNOWN_RESTING`](crate::KNOWN_RESTING).
    #[must_use]
    pub fn resting() -> Self {
        Self { rests: true, leaves_alone: true, leads: true, hurries: true, ..Self::default() }
    }

    /// Those of the seeds in [`KNOWN_SPREADING`](crate::KNOWN_SPREADING).
    #[must_use]
    pub fn spreading() -> Self {
        Self { spreads: true, overtakes: true, ..Self::resting() }
    }

    /// Those of the seeds in [`KNOWN_RELAYING`](crate::KNOWN_RELAYING).
    #[must_use]
    pub fn relaying() -> Self {
        Self { relays: true, holds: true, cools_down: true, ..Self::spreading() }
    }

    /// Those of the seeds in [`KNOWN_SIGNING`](crate::KNOWN_SIGNING).
    #[must_use]
    pub fn signing() -> Self {
        Self { signs: true, ..Self::relaying() }
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { hands_on: true, ..Self::signing() }
    }
}
