//! One schedule: a world made from a seed, some hours of trouble, and then calm.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use grasp_mirror::{
    model::{
        policy::{Policy, Reach},
        refs::Refs,
    },
    plan::{retry::next_due, spread::Usual},
};

use crate::{
    bot::Bot,
    check,
    disk::Disk,
    git::History,
    grasp::Grasp,
    inbox::{Order, Post},
    ledger_is_clean,
    own::listed,
    owners::Project,
    people::key,
    relays::Relay,
    rest::Kept,
    world::{Crash, Faults, Habits, Home, Host, Ledger, START, Totals, World, tell},
};

/// Cycles after which everything must be as it should be, but for what the bot believes for two days.
const CALM_CYCLES: usize = 5;

/// For how long it believes that a server still holds a conversation, and a little more.
const BELIEF_SECS: u64 = 180_000;

/// More than the longest wait between two tries.
const CALM_SECS: u64 = 4_000;

/// What came of a schedule.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went wrong with the bot, if anything did.
    pub broken: Option<String>,
    /// What happened.
    pub totals: Totals,
}

fn world(seed: u64, habits: Habits, loud: bool) -> (World, Policy, Usual) {
    let mut rng = Rng::with_seed(seed);
    let hosts = (0..rng.usize(1..5))
        .map(|n| Host {
            grasp: Grasp::new(format!("wss://s{n}.example").parse().unwrap()),
            faults: Faults::default(),
            is_denied: false,
        })
        .collect();
    let relays = (0..rng.usize(1..4)).map(|_| Relay::default()).collect();
    let mut world = World {
        now: START,
        rng,
        history: History::default(),
        hosts,
        relays,
        projects: Vec::new(),
        homes: Vec::new(),
        mail: Vec::new(),
        crash_in: None,
        calm: false,
        habits,
        signer: None,
        turns: None,
        loses_git: false,
        loud,
        ledger: Ledger::default(),
        broken: None,
        totals: Totals::default(),
    };
    let mut policy = Policy::default();
    if world.hosts.len() > 1 && world.chance(15) {
        let last = world.hosts.len() - 1;
        world.hosts[last].is_denied = true;
        policy.deny.servers.insert(world.hosts[last].grasp.url.clone());
    }
    let reach = if world.chance(15) { Reach::Listed } else { Reach::Everywhere };
    let copies_wanted = (habits.spreads && world.chance(50)).then(|| world.rng.u32(1..4));
    tell!(world, "copies wanted: {copies_wanted:?}");
    let servers = world.hosts.len();
    for n in 0..world.rng.u8(1..4) {
        // Two owners may use one name.
        let owner = 1 + world.rng.u8(..2);
        let mut d = ["hello", "world"][usize::from(n % 2)].to_owned();
        if world.projects.iter().any(|other| other.owner == owner && other.d == d) {
            d.push('2');
        }
        let listed: BTreeSet<usize> = (0..servers).filter(|_| world.rng.u8(..100) < 35).collect();
        let (invites, new_tags) = (world.chance(30), world.chance(50));
        let leads = habits.leads && world.chance(50);
        world.projects.push(Project {
            d,
            owner,
            helper: 10 + owner,
            invites,
            new_tags,
            leads,
            listed,
            private: false,
            refs: Refs::new(),
            talk: Vec::new(),
            announcement: None,
            dated: START,
        });
        world.homes.push(Home::Good);
        if world.chance(8) {
            let (at, path) = (world.rng.usize(..servers), world.projects[usize::from(n)].coordinate());
            world.hosts[at].grasp.denied.insert(path);
        }
    }
    if habits.signs && world.chance(if habits.hands_on { 50 } else { 25 }) {
        world.signer = Some(key(1));
    }
    (world, policy, Usual { reach, copies_wanted })
}

/// Runs the schedule of this seed; `loud` prints every step.
#[must_use]
pub fn run(seed: u64, habits: Habits, loud: bool) -> Outcome {
    let (mut world, policy, usual) = world(seed, habits, loud);
    let (mut disk, mut post) = (Disk::default(), Post::default());
    disk.watched.authors.extend([key(1), key(2)]);
    if habits.holds {
        world.ledger.decisions.hold_secs = [0, 3_600, 86_400][world.rng.usize(..3)];
    }
    for at in 0..world.projects.len() {
        world.announce(at);
        let main = world.history.commit(None);
        let owner = world.projects[at].owner;
        world.sign_state(at, owner, Refs::from([("refs/heads/main".parse().unwrap(), main)]));
    }
    let mut schedule =
        Schedule { policy: &policy, usual, kept: Kept::default(), fresh_start: false, afresh: false };
    for _ in 0..world.rng.u32(5..25) {
        if habits.spreads && world.chance(6) {
            schedule.absence(&mut world, &mut disk, &mut post);
        }
        if habits.holds && world.chance(5) {
            schedule.takes_most_away(&mut world, &mut disk, &mut post);
        }
        if habits.relays {
            schedule.lists_and_losses(&mut world, &mut disk, &mut post);
        }
        match world.rng.u8(..10) {
            0..=2 => world.somebody_acts(),
            3 | 4 => world.something_goes_wrong(),
            5 => {
                let owner = 1 + world.rng.u8(..2);
                let orders = [
                    Order::Watch(owner),
                    Order::Unwatch(owner),
                    Order::Pause,
                    Order::Resume,
                    Order::Resync,
                    Order::Resync,
                ];
                let order = orders[world.rng.usize(..orders.len())];
                let order = if habits.holds && world.chance(40) { decision(&mut world) } else { order };
                post.say(&mut world, order);
            }
            _ => {
                let secs = if world.chance(20) { world.rng.u64(..10_000) } else { world.rng.u64(..900) };
                world.wait(secs);
                if world.chance(25) {
                    world.crash_in = Some(world.rng.u32(..60));
                }
                let patient = world.chance(80);
                world.turns = (habits.hurries && world.chance(20)).then_some(1);
                schedule.live(&mut world, &mut disk, &mut post, patient);
            }
        }
        if world.broken.is_some() {
            return Outcome { broken: world.broken, totals: world.totals };
        }
    }
    schedule.calm(&mut world, &mut disk, &mut post);
    Outcome { broken: world.broken, totals: world.totals }
}

/// Somebody decides about what is held, if anything is.
fn decision(world: &mut World) -> Order {
    let project = world.rng.usize(..world.projects.len());
    if world.chance(50) { Order::Approve(project) } else { Order::Reject(project) }
}

struct Schedule<'a> {
    policy: &'a Policy,
    usual: Usual,
    /// What the bot remembers as long as it lives.
    kept: Kept,
    /// The bot was killed and begins anew.
    fresh_start: bool,
    /// Somebody asked for a resync that no cycle has done yet. Lost with the bot, like in the program.
    afresh: bool,
}

impl Schedule<'_> {
    /// The bot hears what there is to hear, and runs a cycle.
    fn live(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post, patient: bool) {
        if self.once(world, disk, post, patient).is_err() {
            // What it has stored it has seen.
            check::note_listings(world, disk);
            self.begin_anew(world);
        }
    }

    fn begin_anew(&mut self, world: &mut World) {
        self.fresh_start = true;
        self.afresh = false;
        self.kept = Kept::default();
        world.ledger.own.looks = 0;
        world.ledger.cools.clear();
        if world.habits.hands_on {
            // What is written down of one mirror holds for all on that server.
            for ((at, _), until) in &world.ledger.told {
                let all = world.ledger.cools.entry(*at).or_default();
                *all = (*all).max(*until);
            }
        }
    }

    /// Somebody signs a state that takes most of a project away, and people may decide about it; the bot may be killed
    /// meanwhile.
    fn takes_most_away(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post) {
        let at = world.rng.usize(..world.projects.len());
        world.sign_little(at);
        for _ in 0..world.rng.u8(1..4) {
            if world.chance(50) {
                let order = if world.chance(50) { Order::Approve(at) } else { Order::Reject(at) };
                post.say(world, order);
            }
            if world.chance(30) {
                world.crash_in = Some(world.rng.u32(..80));
            }
            let secs = if world.chance(20) { world.rng.u64(..100_000) } else { world.rng.u64(..2_000) };
            world.wait(secs);
            self.live(world, disk, post, true);
        }
    }

    /// Somebody changes the bot's lists with another client, and the bot's disk is lost.
    fn lists_and_losses(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post) {
        if world.chance(3) {
            world.another_client_acts();
        }
        if world.chance(2) {
            tell!(world, "the bot's disk is lost");
            world.totals.losses += 1;
            self.begin_anew(world);
            *disk = Disk::default();
            post.forgotten();
            let hold_secs = world.ledger.decisions.hold_secs;
            world.ledger = Ledger::default();
            world.ledger.decisions.hold_secs = hold_secs;
        }
    }

    fn once(
        &mut self,
        world: &mut World,
        disk: &mut Disk,
        post: &mut Post,
        patient: bool,
    ) -> Result<(), Crash> {
        let (policy, usual, turns) = (self.policy, self.usual, BTreeMap::new());
        let mut bot = Bot { world, disk, kept: &mut self.kept, policy, usual, turns };
        if bot.world.habits.relays {
            bot.world.ledger.told_relays = 0;
            bot.world.ledger.own.signed = 0;
            bot.look_after_own()?;
        }
        if self.fresh_start {
            self.afresh |= bot.resume_journal(post)?;
        }
        self.afresh |= bot.hear(post)?;
        bot.forget();
        let (patient, afresh) = (patient && !self.fresh_start && !self.afresh, self.afresh);
        bot.cycle(patient, afresh)?;
        if bot.world.habits.signs && bot.list_servers(afresh)? {
            bot.cycle(true, false)?;
        }
        if !bot.world.ledger.overtaken.is_empty() {
            // What was heard is a job of its own, and comes at once.
            bot.cycle(true, false)?;
        }
        (self.fresh_start, self.afresh) = (false, false);
        Ok(())
    }

    /// A server is away for up to two days; somebody else may change it meanwhile.
    fn absence(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post) {
        let at = world.rng.usize(..world.hosts.len());
        tell!(world, "server {at} is away for long");
        for _ in 0..world.rng.u8(2..6) {
            world.hosts[at].faults = Faults { down: true, ..Faults::default() };
            self.live(world, disk, post, true);
            world.wait(30_000);
        }
        world.hosts[at].faults = Faults { down: world.chance(30), ..Faults::default() };
        self.live(world, disk, post, true);
    }

    /// Nothing goes wrong any more: everything must come right, and then stay in peace.
    fn calm(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post) {
        world.calm_down();
        world.turns = None;
        if world.habits.relays {
            self.all_is_watched(world, disk, post);
        }
        for (at, _, _) in &mut post.arriving {
            *at = world.now;
        }
        self.live(world, disk, post, true);
        if !world.habits.relays {
            disk.paused = false;
            disk.watched.authors.extend([key(1), key(2)]);
        }
        for cycle in 0..2 * CALM_CYCLES {
            world.wait(if cycle == CALM_CYCLES { BELIEF_SECS } else { CALM_SECS });
            // Git data that a server lost while it serves the state is found by a resync alone.
            self.afresh |= cycle == CALM_CYCLES && world.loses_git;
            self.live(world, disk, post, true);
        }
        let at_rest = world.broken.is_none() && check::has_converged(world, disk, self.policy, self.usual);
        if at_rest && world.broken.is_none() {
            world.wait(CALM_SECS);
            self.live(world, disk, post, true);
            ledger_is_clean(world);
            if world.habits.relays {
                check::knows_what_there_is(world, disk, self.policy);
                check::lists_are_everywhere(world, disk);
            }
            if let Some(due) =
                next_due(check::records_of_wanted(disk).iter().flat_map(|record| record.mirrors.values()))
            {
                world.break_promise(|| format!("everything is well, and yet something is due at {due}"));
            }
        }
        for id in &post.heard {
            let (answers, is_well) = post.answers_of(id);
            if !is_well {
                world.break_promise(|| format!("the command {id} has {answers} answers in the end"));
            }
        }
        tell!(world, "the end: {:?}", world.totals);
    }

    /// Whatever was said before: both owners are followed, and the bot is not paused.
    fn all_is_watched(&mut self, world: &mut World, disk: &mut Disk, post: &mut Post) {
        self.live(world, disk, post, true);
        let before = world.newest_list();
        let relays: Vec<usize> = (0..world.relays.len()).collect();
        world.sign_list_elsewhere(&BTreeSet::from([listed(1), listed(2)]), before.as_ref(), &relays);
        self.live(world, disk, post, true);
        let (policy, usual, turns) = (self.policy, self.usual, BTreeMap::new());
        let mut bot = Bot { world, disk, kept: &mut self.kept, policy, usual, turns };
        if !matches!(bot.change_own(Order::Resume), Ok(true)) {
            world.break_promise(|| "nothing is wrong any more, and the bot's lists are not known".to_owned());
        }
    }
}
