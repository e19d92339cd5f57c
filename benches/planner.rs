//! The pure planner over ten thousand repositories and twenty servers: catalog, places, next steps.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use grasp_mirror::{
    model::{policy::Reach, refs::Refs, server::ServerUrl},
    plan::{
        catalog::{self, Catalog, Limits, Watched},
        converge::{Seen, Wanted, next_step},
        placement::{Grasp, Place, places},
    },
};
use grasp_mirror_testkit::Person;
use nostr::{event::Event, key::PublicKey};

const AUTHORS: usize = 20;
const EACH: usize = 500;
const SERVERS: usize = 20;
const LIMITS: Limits = Limits { max_refs: 20_000, max_repos_per_author: 1_000 };
const TIP: &str = "306eaca2306eaca2306eaca2306eaca2306eaca2";

/// Announcements that list half of the servers, and states.
fn events(authors: &[Person], servers: &[ServerUrl]) -> Vec<Event> {
    let mut events = Vec::new();
    for author in authors {
        for number in 0..EACH {
            let d = format!("repository-{number}");
            let listed: Vec<_> = servers.iter().step_by(2).collect();
            let clone_urls: Vec<String> =
                listed.iter().map(|server| server.clone_url(&author.public_key(), &d).to_string()).collect();
            let relays: Vec<String> = listed.iter().map(|server| server.relay_url().to_string()).collect();
            let tag = |name, values: &[String]| -> Vec<String> {
                std::iter::once(String::from(name)).chain(values.iter().cloned()).collect()
            };
            let (clone, relays) = (tag("clone", &clone_urls), tag("relays", &relays));
            let [clone, relays] =
                [&clone, &relays].map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
            events.push(author.sign(30617, "", &[&["d", &d], &["name", &d], &clone, &relays]));
            events.push(author.sign(
                30618,
                "",
                &[
                    &["d", &d],
                    &["refs/heads/main", TIP],
                    &["refs/tags/v1", TIP],
                    &["HEAD", "ref: refs/heads/main"],
                ],
            ));
        }
    }
    events
}

fn all_places(
    catalog: &Catalog,
    servers: &BTreeMap<ServerUrl, Grasp>,
    bot: &PublicKey,
) -> Vec<BTreeMap<ServerUrl, Place>> {
    let of =
        |it: &catalog::Repository| places(it, servers, Reach::Everywhere, bot, &it.coordinate.identifier);
    catalog.repositories.iter().map(of).collect()
}

/// What every mirror is to have, and that it has it.
fn mirrors(catalog: &Catalog, places: &[BTreeMap<ServerUrl, Place>]) -> Vec<(Wanted, Seen)> {
    let mut mirrors = Vec::new();
    for (repository, places) in catalog.repositories.iter().zip(places) {
        let state = repository.state.as_ref().map(|state| state.event.id);
        let announcements = repository.announcements.iter().map(|it| it.event.id);
        let governing: Vec<_> = announcements.chain(state).collect();
        let served: BTreeSet<_> = governing.iter().copied().collect();
        for (server, place) in places {
            let wanted = Wanted {
                repository: repository.coordinate.clone(),
                server: server.clone(),
                place: place.clone(),
                governing: governing.clone(),
                state,
                refs: Refs::new(),
                attached: Vec::new(),
                pull_requests: Vec::new(),
                conversation: Vec::new(),
            };
            mirrors.push((wanted, Seen { served: served.clone(), fresh: true, ..Seen::default() }));
        }
    }
    mirrors
}

fn planner(criterion: &mut Criterion) {
    let authors: Vec<Person> = (0..AUTHORS).map(|_| Person::new()).collect();
    let servers: Vec<ServerUrl> =
        (0..SERVERS).map(|number| format!("wss://server-{number}.example").parse().unwrap()).collect();
    let events = events(&authors, &servers);
    let watched =
        Watched { authors: authors.iter().map(|it| it.public_key()).collect(), ..Watched::default() };
    let bot = Person::new().public_key();
    let grasps = servers.into_iter().map(|server| (server, Grasp::Full)).collect();
    let catalog = catalog::build(&events, &watched, &bot, LIMITS);
    assert_eq!(catalog.repositories.len(), AUTHORS * EACH);
    let placed = all_places(&catalog, &grasps, &bot);
    let mirrors = mirrors(&catalog, &placed);

    let mut group = criterion.benchmark_group("10000 repositories, 20 servers");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("catalog", |bencher| {
        bencher.iter(|| catalog::build(black_box(&events), &watched, &bot, LIMITS));
    });
    group.bench_function("places", |bencher| {
        bencher.iter(|| all_places(black_box(&catalog), &grasps, &bot));
    });
    group.bench_function("next steps", |bencher| {
        bencher.iter(|| {
            mirrors.iter().map(|(wanted, seen)| next_step(wanted, black_box(seen))).collect::<Vec<_>>()
        });
    });
    group.finish();
}

criterion_group!(benches, planner);
criterion_main!(benches);
