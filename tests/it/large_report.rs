//! However many repositories there are, the report is one event that an ordinary relay takes.

use grasp_mirror_testkit::{Announcement, Mirror, Person, Server, TestRelay};
use nostr::filter::Filter;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// As JSON more than fits.
const REPOSITORIES: usize = 450;

#[tokio::test]
async fn a_report_on_hundreds_of_repositories_arrives() {
    let (a, relay, person) = (Server::start().await, TestRelay::start().await, Person::new());
    for n in 0..REPOSITORIES {
        let announcement = Announcement::new(person.public_key(), &format!("repository-{n:03}"));
        relay.send(&person.sign_announcement(announcement)).await.expect_accepted();
    }
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&person);
    let run = mirror.run(&["mirror-once", "--json"]).await.expect_code(0);
    let printed = run.json();
    assert_eq!(printed["totals"]["repos"], REPOSITORIES);
    let shown = printed["repos"].as_array().map_or(0, Vec::len);
    assert!(shown > 100, "{shown}");
    assert_eq!(printed["truncated"], REPOSITORIES - shown);

    let reports = relay.served(Filter::new().author(mirror.bot_pubkey()).kind(30078.into())).await;
    let [report] = reports.as_slice() else { panic!("one report, not {}", reports.len()) };
    assert_eq!(report.content, run.stdout.trim());
}
