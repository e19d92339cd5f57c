//! Whose turn it is: no server slows another, and nobody holds a place that he does not use.
//!
//! All repositories of a cycle are under way at once. Each takes a place to bring its git data here, and gives it back;
//! then each of its mirrors waits for a place in its *server's* lane. So a server that takes 55 events a minute keeps its
//! own mirrors waiting and nobody else's.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::survey::Survey;
use crate::{
    model::server::ServerUrl,
    plan::{
        converge::{Seen, Step, Wanted, next_step},
        progress::{ServerProgress, Tally},
        record::Ending,
    },
    relay::Relays,
    transfer::newer::{Newer, OVERTAKEN},
};

/// Mirrors of one server that are walked at the same time. Each needs a few round trips, so that many keep a distant
/// server busy; large pushes have places of their own.
const ABREAST: usize = 16;

/// The places of one cycle.
#[derive(Debug)]
pub(super) struct Lanes {
    /// For bringing a repository's git data here.
    copies: Semaphore,
    /// For the commits of pull requests: anyone can write one whose source is slow, and no repository waits for that.
    requests: Semaphore,
    lanes: BTreeMap<ServerUrl, Lane>,
    /// When nobody is let in any more who has to wait; `None`: never.
    until: Option<Instant>,
    /// Whether somebody was.
    cut_short: AtomicBool,
    relays: Arc<Relays>,
}

/// One server's places, and what was done in them.
#[derive(Debug)]
struct Lane {
    places: Semaphore,
    course: Mutex<Course>,
    /// Said to all who do not get their turn in this cycle: the first one's words, or it would sound better and better.
    turned_away: OnceLock<String>,
    /// How mirrors end since the server does not want to be asked.
    closed: OnceLock<Ending>,
}

#[derive(Debug, Default)]
struct Course {
    left: usize,
    done: usize,
    events: usize,
    begun: Option<Instant>,
}

impl Lanes {
    /// A lane for each server of `survey`. At `until` whoever still waits is turned away.
    pub(super) fn new(survey: &Survey, copies: usize, until: Option<Instant>, relays: Arc<Relays>) -> Self {
        let mut left: BTreeMap<ServerUrl, usize> =
            survey.servers.keys().map(|url| (url.clone(), 0)).collect();
        for subject in &survey.subjects {
            for (url, wanted) in &subject.wanted {
                if subject.seen.get(url).is_some_and(|seen| has_work(wanted, seen)) {
                    *left.entry(url.clone()).or_default() += 1;
                }
            }
        }
        Self::with(left, copies, until, relays)
    }

    /// Lanes with so many mirrors that have work to do.
    fn with(
        left: BTreeMap<ServerUrl, usize>,
        copies: usize,
        until: Option<Instant>,
        relays: Arc<Relays>,
    ) -> Self {
        let lane = |(url, left)| (url, Lane::new(Course { left, ..Course::default() }));
        let (lanes, places) = (left.into_iter().map(lane).collect(), || Semaphore::new(copies));
        let cut_short = AtomicBool::new(false);
        Self { copies: places(), requests: places(), lanes, until, cut_short, relays }
    }

    /// A place to bring a repository's git data here; `None` when the time of this cycle is over.
    pub(super) async fn copy_place(&self) -> Option<SemaphorePermit<'_>> {
        self.noted(turn(&self.copies, self.until).await)
    }

    /// A place to fetch the commits of pull requests.
    pub(super) async fn request_place(&self) -> Option<SemaphorePermit<'_>> {
        self.noted(turn(&self.requests, self.until).await)
    }

    /// Does `work` in the lane of `server` when its turn has come; else how a mirror ends whose turn did not come in
    /// this cycle, or is not needed any more.
    ///
    /// `work` is made only then, so that who waits holds nothing.
    pub(super) async fn take<T, W: Future<Output = T>>(
        &self,
        server: &ServerUrl,
        newer: &Newer,
        work: impl FnOnce() -> W,
    ) -> Result<T, Ending> {
        let Some(lane) = self.lanes.get(server) else { return Ok(Box::pin(work()).await) };
        let place = tokio::select! {
            place = turn(&lane.places, self.until) => place,
            () = newer.comes() => return Err(Ending::Waiting(OVERTAKEN.to_owned())),
        };
        match self.noted(place) {
            Some(_place) => {
                if let Some(ending) = lane.closed.get() {
                    return Err(ending.clone());
                }
                lane.course().begun.get_or_insert_with(Instant::now);
                Ok(Box::pin(work()).await)
            }
            None => {
                let why = || self.tally(server, lane).waits_its_turn(server);
                Err(Ending::Waiting(lane.turned_away.get_or_init(why).clone()))
            }
        }
    }

    /// Lets nobody more to `server` in this cycle, who all end in the same way: it said how long it wants to be left
    /// alone.
    pub(super) fn close(&self, server: &ServerUrl, ending: &Ending) {
        if let Some(lane) = self.lanes.get(server) {
            // Closed already, if this fails.
            let _ = lane.closed.set(ending.clone());
        }
    }

    /// A mirror at `server` that had work to do is done with, and was sent so many events.
    pub(super) fn done(&self, server: &ServerUrl, events: usize) {
        if let Some(lane) = self.lanes.get(server) {
            let mut course = lane.course();
            course.left = course.left.saturating_sub(1);
            course.done += 1;
            course.events += events;
        }
    }

    /// A mirror at `server` has nothing more to do in this cycle, and nothing was done for it.
    pub(super) fn dropped(&self, server: &ServerUrl) {
        if let Some(lane) = self.lanes.get(server) {
            let mut course = lane.course();
            course.left = course.left.saturating_sub(1);
        }
    }

    /// When whoever still waits is turned away.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Somebody was left to the next cycle.
    pub(super) fn cut_short(&self) {
        self.cut_short.store(true, Ordering::Relaxed);
    }

    /// Whether somebody did not get his turn.
    pub(super) fn is_unfinished(&self) -> bool {
        self.cut_short.load(Ordering::Relaxed)
    }

    /// Where mirrors are left, and for how long.
    pub(super) fn progress(&self) -> Vec<ServerProgress> {
        let tallies = self.lanes.iter().map(|(url, lane)| (url, self.tally(url, lane)));
        tallies.filter(|(_, tally)| tally.left > 0).map(|(url, tally)| tally.progress(url.clone())).collect()
    }

    fn noted<T>(&self, place: Option<T>) -> Option<T> {
        if place.is_none() {
            self.cut_short();
        }
        place
    }

    fn tally(&self, server: &ServerUrl, lane: &Lane) -> Tally {
        let Course { left, done, events, begun } = *lane.course();
        let elapsed = begun.map(|begun| begun.elapsed()).unwrap_or_default();
        Tally {
            left,
            done,
            events,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            events_per_minute: self.relays.events_per_minute(server.relay_url()),
        }
    }
}

impl Lane {
    fn new(course: Course) -> Self {
        Self {
            places: Semaphore::new(ABREAST),
            course: Mutex::new(course),
            turned_away: OnceLock::new(),
            closed: OnceLock::new(),
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anything has to be asked, sent or pushed for a mirror.
pub(super) fn has_work(wanted: &Wanted, seen: &Seen) -> bool {
    !matches!(next_step(wanted, seen), Step::Settled(_))
}

/// A place in `places`: at once if one is free, also after `until`, so that every cycle does something.
async fn turn(places: &Semaphore, until: Option<Instant>) -> Option<SemaphorePermit<'_>> {
    match (places.try_acquire(), until) {
        (Ok(place), _) => Some(place),
        (Err(_), None) => places.acquire().await.ok(),
        (Err(_), Some(until)) => timeout_at(until, places.acquire()).await.ok()?.ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use futures::future::join_all;
    use nostr::prelude::Keys;
    use tokio::time::sleep;

    use super::*;
    use crate::{config::Config, cycle::guard, relay, transfer::newer::Word};

    /// Lanes of `servers`, each with so many mirrors to walk.
    fn lanes(servers: &[&str], mirrors: usize, until: Option<Duration>) -> Lanes {
        let limits = relay::Limits {
            connect_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(1),
            events_per_minute: NonZeroU32::new(55).unwrap(),
            max_events: 1,
            rest: None,
        };
        let addresses = Arc::new(guard(&Config::default()));
        let relays = Arc::new(Relays::that_keep_nothing(addresses, Keys::generate(), limits));
        let left = servers.iter().map(|server| (server.parse().unwrap(), mirrors)).collect();
        Lanes::with(left, 8, until.map(|until| Instant::now() + until), relays)
    }

    /// Walks one mirror that needs four events, which takes `time` in all.
    async fn walk(lanes: &Lanes, server: &ServerUrl, time: Duration) -> Result<Instant, Ending> {
        lanes.take(server, &Word::default().as_of_now().of(""), || sleep(time)).await?;
        lanes.done(server, 4);
        Ok(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_mirrors_on_a_slow_server_hold_up_no_other() {
        let begun = Instant::now();
        let lanes = lanes(&["wss://slow.example", "wss://fast.example"], 2000, None);
        let [slow, fast]: [ServerUrl; 2] =
            ["wss://slow.example", "wss://fast.example"].map(|url| url.parse().unwrap());
        // 55 events a minute are 4.36 s for each mirror, and sixteen wait for them at the same time.
        let times = [(&slow, Duration::from_millis(4364 * 16)), (&fast, Duration::from_millis(100))];
        let walks = (0..2000).map(|_| async {
            drop(lanes.copy_place().await.unwrap());
            join_all(times.map(|(server, time)| walk(&lanes, server, time))).await
        });
        let watch = async {
            sleep(Duration::from_secs(600)).await;
            lanes.progress()
        };
        let (walked, progress) = tokio::join!(join_all(walks), watch);
        let last =
            |at: usize| walked.iter().map(|ends| *ends.get(at).unwrap().as_ref().unwrap()).max().unwrap();
        assert!(last(1) - begun < Duration::from_secs(14), "the fast one: {:?}", last(1) - begun);
        let slowest = last(0) - begun;
        assert!(slowest > Duration::from_secs(8700) && slowest < Duration::from_secs(8800), "{slowest:?}");
        // After ten minutes only the slow one is left, and what is said of it came true within a few percent.
        let [left] = progress.as_slice() else { panic!("{progress:?}") };
        let promised = left.seconds_left.unwrap() + 600;
        assert!(
            promised.abs_diff(slowest.as_secs()) < 900,
            "{promised} s were promised, it took {slowest:?}"
        );
        assert_eq!((left.url.clone(), left.events_per_minute), (slow, Some(55)));
        assert!(!lanes.is_unfinished());
    }

    #[tokio::test]
    async fn nobody_goes_to_a_server_that_said_when_it_wants_to_be_asked_again() {
        let [limited, other]: [ServerUrl; 2] =
            ["wss://limited.example", "wss://other.example"].map(|url| url.parse().unwrap());
        let lanes = lanes(&["wss://limited.example", "wss://other.example"], 3, None);
        let ending = Ending::RateLimited { reason: "HTTP 429".to_owned(), told_secs: Some(600) };
        assert!(walk(&lanes, &limited, Duration::ZERO).await.is_ok());
        lanes.close(&limited, &ending);
        assert_eq!(walk(&lanes, &limited, Duration::ZERO).await, Err(ending));
        assert!(walk(&lanes, &other, Duration::ZERO).await.is_ok());
        assert!(!lanes.is_unfinished(), "the next cycle has nothing to hurry for");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_when_the_time_is_over_is_told_why_and_each_cycle_does_something() {
        let server: ServerUrl = "wss://slow.example".parse().unwrap();
        for until in [Duration::from_secs(900), Duration::ZERO] {
            let begun = Instant::now();
            let lanes = lanes(&["wss://slow.example"], 2000, Some(until));
            let time = Duration::from_millis(4364 * 16);
            let walked = join_all((0..2000).map(|_| walk(&lanes, &server, time))).await;
            let done = walked.iter().filter(|end| end.is_ok()).count();
            assert!(begun.elapsed() <= until + time, "{:?}", begun.elapsed());
            assert!(lanes.is_unfinished() && done >= ABREAST, "{done}");
            let words = |end: Result<_, Ending>| match end.err()? {
                Ending::Waiting(words) => Some(words),
                other => panic!("{other:?}"),
            };
            let told: std::collections::BTreeSet<_> = walked.into_iter().filter_map(words).collect();
            let told: Vec<String> = told.into_iter().collect();
            if until.is_zero() {
                assert_eq!(told, ["waits its turn at wss://slow.example"]);
            } else {
                insta::assert_snapshot!(told.join("\n"), @"waits its turn: wss://slow.example takes 55 events a minute; about 2 h to go");
            }
        }
    }
}
