//! A server that is busy or breaks off when the bot first meets it is down, not something else: its mirrors
//! are wanted, and the exit code says that they are not there.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn trouble_at_the_first_contact_is_not_taken_for_no_grasp_server() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let b = Server::builder().behind_proxy().start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mut mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    for fault in [Fault::Status(429), Fault::Status(403), Fault::Refuse, Fault::CutDown(600)] {
        b.proxy().heal();
        match fault {
            Fault::Refuse => b.proxy().fault(fault),
            _ => b.proxy().fault_on("/", fault),
        }
        // Each time a bot that has never met the server.
        mirror = mirror.on_a_new_machine();
        mirror.once().await.expect_code(2);
        let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
        assert_eq!(problem["status"], "unreachable", "{fault:?}: {problem}");
    }
    b.proxy().heal();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
