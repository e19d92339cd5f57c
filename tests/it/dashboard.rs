//! The dashboard in a real browser: it shows a real daemon's state, follows it without being loaded again, is harmless
//! whatever strangers wrote, and is of use with a keyboard, on a phone, in the dark, and with thousands of repositories.
//!
//! Screenshots are in `target/screenshots/`; `docs/dashboard.png` is `readme` of them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;

use grasp_mirror::report::picture::Picture;
use grasp_mirror_testkit::{Browser, Fault, Mirror, Owner, Server, Site, TestRelay};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::gallery::{Gallery, HOSTILE, now, npub, outcomes};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn it_shows_a_real_daemon_and_follows_it() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("it's <b>é漢<b> 100%").at_home_on(&relay);
    let announcement = owner.announcement().at(&a).described(HOSTILE, "\u{202e}txt.\u{2066}עברית");
    owner.publish(announcement, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).shows();
    let mirror = mirror.set("limits.retry_first_secs", 1);
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    daemon.wait_log("cycle done").await;

    let mut browser = Browser::start().await;
    browser.window(1280, 800, "light").await;
    browser.visit(&site.url("/"), ".matrix").await;
    let names = "[...document.querySelectorAll('.matrix .repo a')].map((a) => a.textContent)";
    assert_eq!(browser.value(names).await, json!([owner.d]));
    let signs =
        "[...document.querySelectorAll('.matrix tbody .sign')].map((sign) => sign.textContent).join('')";
    assert_eq!(browser.value(signs).await, "✓✓");
    assert_eq!(browser.complaints().await, json!([]));

    // With the keyboard alone: from the filter into the grid, along it, and into the repository.
    browser.value("window.never = 'loaded again'").await;
    assert_eq!(browser.value("document.querySelector('#bot-npub').title").await, mirror.npub());
    browser.press("/").await;
    browser.write("no such repository").await;
    browser.wait("document.querySelector('#count').textContent.startsWith('0 of 1')").await;
    for _ in 0.."no such repository".len() {
        browser.press("Backspace").await;
    }
    // The list follows with the next frame; before it there is no grid that Tab could enter.
    browser.wait("document.querySelector('#count').textContent === '1 repository'").await;
    browser.press("Tab").await;
    for key in ["ArrowRight", "ArrowRight"] {
        browser.press(key).await;
    }
    browser.wait("document.activeElement.matches('td.cell') && !document.querySelector('#tip').hidden").await;
    let told = browser.value("document.querySelector('#tip').textContent").await;
    assert_eq!(told, format!("{}: in sync", b.authority()));

    // A server fails: what is focused says so by itself.
    b.proxy().fault_on("git-receive-pack", Fault::Status(500));
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    browser.wait("document.querySelectorAll('.matrix .sign.f').length === 1").await;
    assert_eq!(browser.value("document.querySelector('.matrix .copies.few').textContent").await, "1/2");
    let told = "document.querySelector('.sign.f').nextSibling.textContent";
    let told = browser.value(told).await;
    assert!(told.as_str().unwrap().contains("failing") && told.as_str().unwrap().contains("500"), "{told}");
    browser.point_at(".matrix .sign.f").await;
    browser.wait("document.querySelector('#tip').textContent.includes('500')").await;
    assert_eq!(browser.faults().await, json!([]));
    b.proxy().heal();
    browser.wait("document.querySelectorAll('.matrix .sign.i').length === 2").await;
    assert_eq!(browser.value("window.never").await, "loaded again");
    browser.wait("document.activeElement.matches('td.cell')").await;
    browser.press("Enter").await;
    browser.wait("document.querySelectorAll('.mirrors > li').length === 2").await;

    let lead = browser.value("document.querySelector('.lead').textContent").await;
    assert!(lead.as_str().unwrap().contains(HOSTILE) && lead.as_str().unwrap().contains("עברית"), "{lead}");
    assert!(!lead.as_str().unwrap().contains(['\u{202e}', '\u{2066}']), "{lead:?}");
    let elements =
        "document.querySelectorAll('main script, main img, main b, [onerror], [onmouseover]').length";
    assert_eq!(browser.value(elements).await, 0);
    let commands = "[...document.querySelectorAll('.clone code')].map((code) => code.textContent)";
    let commands = browser.value(commands).await;
    assert!(commands.to_string().contains(&mirror.url_at(&b, &owner.d)), "{commands}");
    browser.click("summary").await;
    browser.wait("document.querySelectorAll('.log li').length >= 2").await;
    assert_eq!(browser.faults().await, json!([]));
    browser.picture("real-repository-light-1280").await;
    daemon.kill();
    browser.wait("document.querySelector('#phase').dataset.state === 'lost'").await;
    browser.close().await;
}

#[tokio::test]
async fn every_state_of_affairs_looks_well_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let mut browser = Browser::start().await;
    for (name, gallery) in [
        ("started", Gallery::started()),
        ("empty", Gallery::of(0, false)),
        ("three", Gallery::of(3, false)),
        ("troubled", Gallery::of(12, true)),
        ("two-thousand", Gallery::of(2_000, true)),
        ("readme", Gallery::shown()),
    ] {
        let owner = gallery.owner;
        let (address, picture) = gallery.open().await;
        let url = format!("http://{address}/");
        let troubled = ("troubled-repository", format!("#/r/{}/repository-3", npub(owner)), ".mirrors");
        let mut pages = vec![(name, "#/".to_owned(), ".matrix, .empty")];
        if name == "troubled" {
            pages.extend([troubled, ("troubled-servers", "#/servers".to_owned(), ".servers")]);
        }
        let windows = [("light", 1280), ("dark", 360), ("dark", 1280), ("light", 360)];
        for (scheme, width) in windows.into_iter().take(if name == "troubled" { 4 } else { 2 }) {
            browser.window(width, 800, scheme).await;
            for (name, hash, selector) in &pages {
                browser.visit(&format!("{url}{hash}"), selector).await;
                // Neither colours nor names depend on how many there are.
                if !["three", "two-thousand"].contains(name) {
                    assert_eq!(browser.faults().await, json!([]), "{name} {scheme}");
                }
                assert!(browser.overflow().await <= 0, "{name} is wider than {width} px");
                all_is_there(&mut browser, name).await;
                let text = browser.value("document.body.innerText").await.to_string();
                assert!(
                    !["null", "undefined", "NaN", "[object"].iter().any(|slip| text.contains(slip)),
                    "{text}"
                );
                browser.picture(&format!("{name}-{scheme}-{width}")).await;
            }
        }
        if name == "two-thousand" {
            of_two_thousand(&mut browser, &url, &picture).await;
        }
        if name == "readme" {
            browser.window(1120, 960, "light").await;
            browser.visit(&url, ".matrix").await;
            browser.picture("readme").await;
        }
        if name == "troubled" {
            problems_are_told(&mut browser, address, &picture).await;
        }
    }
    browser.close().await;
}

/// How much the browser has to do before it shows anything, and how much there is then.
async fn work_of(browser: &mut Browser) -> (Value, u64, u64) {
    let asked = "performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname).sort()";
    let elements = "document.querySelectorAll('*').length";
    let bytes =
        "performance.getEntriesByName(new URL('/api/mirrors.json', location).href)[0].decodedBodySize";
    let [elements, bytes] = [browser.value(elements).await, browser.value(bytes).await];
    (browser.value(asked).await, elements.as_u64().unwrap(), bytes.as_u64().unwrap())
}

/// How fast it is depends on the machine; what it costs does not: one request for all data, a row of which is small, and
/// as many elements as with a tenth of the repositories.
async fn of_two_thousand(browser: &mut Browser, url: &str, picture: &watch::Sender<Picture>) {
    browser.window(1280, 800, "light").await;
    let (address, _fewer) = Gallery::of(200, true).open().await;
    browser.visit(&format!("http://{address}/"), ".matrix").await;
    let (asked, elements, _) = work_of(browser).await;
    browser.visit(url, ".matrix").await;
    let (of_all, of_all_elements, bytes) = work_of(browser).await;
    println!("{bytes} bytes of data, {of_all_elements} elements, {of_all}");
    assert_eq!((&of_all, of_all_elements), (&asked, elements), "(left: of 2,000; right: of 200)");
    let data = of_all.as_array().unwrap().iter().filter(|path| path.to_string().contains("/api/m")).count();
    assert_eq!(data, 1, "{of_all}");
    assert!(bytes < 2_000 * 512, "{bytes}");
    let painted = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    let all =
        "new Promise((done) => new PerformanceObserver((list) => done(list.getEntries().at(-1).startTime))
        .observe({ type: 'largest-contentful-paint', buffered: true }))";
    let (first, all) = (browser.value(painted).await, browser.value(all).await);
    println!("of 2,000 repositories: first paint after {first} ms, the matrix after {all} ms");

    let rows = "document.querySelectorAll('.matrix tbody tr').length";
    assert_eq!(browser.value(rows).await, 100, "a page, however many there are");
    let first = "document.querySelector('.matrix tbody tr').textContent";
    assert!(browser.value(first).await.as_str().unwrap().starts_with("repository-3"), "problems first");
    let strip = "[...document.querySelectorAll('.strip > span')].map((part) => part.style.flexGrow)";
    assert_eq!(browser.value(strip).await, json!(["100", "100", "1800"]));
    browser.click("#only-0").await;
    browser.wait("document.querySelector('#count').textContent === '100 of 2,000 repositories'").await;
    browser.click("#only-0").await;
    keyboard_goes_on(browser).await;
    browser.click("#next").await;
    browser.wait("document.querySelector('.pager').textContent.startsWith('101–200 of 2,000')").await;
    assert_eq!(browser.value("document.activeElement.id").await, "next");
    browser.click("#filter").await;
    browser.write("repository-1999").await;
    browser.wait("document.querySelectorAll('.matrix tbody tr').length === 1").await;
    // What changes is told by name, not sent all over again.
    let mut outcomes = outcomes(2_000, true, picture.borrow().bot.key);
    outcomes.retain(|outcome| outcome.coordinate.identifier != "repository-1999");
    let report = picture.borrow().report.clone();
    picture.send_modify(|picture| picture.follow(&report, &outcomes));
    browser.wait("document.querySelector('#count').textContent === '0 of 1,999 repositories'").await;
    let again = "performance.getEntriesByName(new URL('/api/mirrors.json', location).href).length";
    assert_eq!(browser.value(again).await, 1, "all is read once");
    assert_eq!(browser.complaints().await, json!([]));
}

/// Whoever goes through the grid by keyboard stays where they are, and is told of it, whatever is drawn meanwhile.
async fn keyboard_goes_on(browser: &mut Browser) {
    let later = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
    let told = "document.querySelector('#tip').hidden ? '' : document.querySelector('#tip').textContent";
    browser.value("document.querySelectorAll('.matrix tbody tr')[3].querySelector('td.cell').focus()").await;
    for _ in 0..6 {
        browser.press("PageDown").await;
    }
    // The page scrolls with the next frame.
    browser.value(later).await;
    assert!(browser.value("scrollY").await.as_f64().unwrap() > 0.0);
    let there = browser.value(told).await;
    assert_ne!(there, "");
    // Another letter, and the grid is entered before the list follows.
    let at = "document.activeElement.closest('tr')?.dataset.key";
    let row = browser.value(at).await;
    browser.value(&format!("filter.dispatchEvent(new Event('input')), {later}")).await;
    assert_eq!((browser.value(at).await, browser.value(told).await), (row, there));
}

/// What a page of one repository and the servers' page have to show, on a page that shows it.
async fn all_is_there(browser: &mut Browser, name: &str) {
    let wanted: &[(&str, u64)] = match name {
        // One of each, nine servers, the last day of each.
        "troubled-servers" => {
            &[(".server .facts", 9), (".server polyline", 9), (".server rect.refusals", 27)]
        }
        "troubled-repository" => {
            &[(".timeline svg", 9), (".mirrors .clone code", 9), (".archive tbody tr", 3)]
        }
        _ => return,
    };
    for (selector, number) in wanted {
        let found = browser.value(&format!("document.querySelectorAll('{selector}').length")).await;
        assert_eq!(found, *number, "{name}: {selector}");
    }
    if name == "troubled-repository" {
        let text = browser.value("document.querySelector('.mirrors > li').innerText").await;
        for part in ["namespace", "read back 1", "since 2 h ago, next try in ", "HTTP 500", "changes"] {
            assert!(text.as_str().unwrap().contains(part), "{part}: {text}");
        }
    }
}

/// Whoever sees no colours has the signs, and each has its word.
async fn statuses_differ(browser: &mut Browser) {
    for of in ["sign.textContent", "getComputedStyle(sign).backgroundColor", "sign.nextSibling.textContent"] {
        let all = format!("new Set([...document.querySelectorAll('.keys .sign')].map((sign) => {of})).size");
        assert_eq!(browser.value(&all).await, 7, "{of}");
    }
    let shown =
        "new Set([...document.querySelectorAll('.matrix td .sign')].map((sign) => sign.className)).size";
    assert_eq!(browser.value(shown).await, 7);
}

async fn problems_are_told(browser: &mut Browser, address: SocketAddr, picture: &watch::Sender<Picture>) {
    let url = &format!("http://{address}/");
    let banner =
        "document.querySelector('#banner').hidden ? '' : document.querySelector('#banner').textContent";
    browser.window(1280, 800, "dark").await;
    browser.visit(url, ".matrix").await;
    assert_eq!(browser.value(banner).await, "");
    statuses_differ(browser).await;
    let alone = "document.querySelector('details.alone').innerText";
    browser.click("details.alone summary").await;
    let told = browser.value(alone).await;
    let told = told.as_str().unwrap();
    assert!(told.contains("1 because somebody wants it so, 1 private"), "{told}");
    assert!(told.contains(HOSTILE) && told.contains("said: forget"), "{told}");
    let missing = browser.value("document.querySelector('details.missing').innerText").await;
    assert!(missing.as_str().unwrap().contains(&format!("lost {HOSTILE}")), "{missing}");
    picture.send_modify(|picture| picture.fail(HOSTILE, now()));
    browser.wait("document.querySelector('#banner').textContent.includes('alert(1)')").await;
    assert_eq!(browser.value("document.querySelector('#phase').dataset.state").await, "failing");
    assert_eq!(browser.value("document.querySelector('details.alone').open").await, true);
    assert_eq!(browser.complaints().await, json!([]));
    browser.picture("failing-dark-1280").await;
    // A young good cycle still counts; an old one does not.
    let site = Site { address };
    assert_eq!(site.get("/healthz").await.status, 200);
    picture.send_modify(|picture| picture.good_at = Some(now() - 4 * 3_600 - 60));
    browser.wait("document.querySelector('#banner').textContent.includes('4 h ago')").await;
    let said = site.get("/healthz").await;
    assert_eq!((said.status, said.json()["phase"].as_str()), (503, Some("failing")), "{said:?}");
    assert!(said.body.contains("the last one failed: <script>"), "{said:?}");
    assert_eq!(said.headers["content-type"], "application/json");
    assert_eq!(site.get("/readyz").await.status, 200);
    picture.send_modify(|picture| {
        picture.failed = None;
        picture.paused = true;
    });
    browser.wait("document.querySelector('#banner').textContent.includes('resume')").await;
    assert_eq!(browser.complaints().await, json!([]));
    // A hostile reason is text, also where it is pointed at.
    browser.point_at(".sign.r").await;
    browser.wait("document.querySelector('#tip').textContent.includes('onerror')").await;
    assert_eq!(browser.value("document.querySelectorAll('#tip img, #tip script').length").await, 0);
    assert_eq!(browser.faults().await, json!([]));
}
