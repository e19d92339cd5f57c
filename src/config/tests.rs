#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, fs};

use nostr::{
    key::Keys,
    nips::nip19::{Nip19Profile, ToBech32},
};
use secrecy::ExposeSecret;

use super::*;
use crate::model::coordinate::Coordinate;

const EXAMPLE: &str = include_str!("../../config.example.toml");
const ENV_EXAMPLE: &str = include_str!("../../.env.example");
const NPUB: &str = "npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy";
const HEX: &str = "aa4fc8665f5696e33db7e1a572e3b0f5b3d615837b0f362dcb1c8068b098c7b4";

fn toml(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("config.toml"))
}

fn wrong(text: &str) -> String {
    toml(text).unwrap_err().to_string()
}

fn with_env(dotenv: &str, env: &[(&str, &str)]) -> Result<Environment, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".env");
    fs::write(&file, dotenv).unwrap();
    let env: HashMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Environment::load(&file, &|name| env.get(name).cloned())
}

fn env_wrong(dotenv: &str, env: &[(&str, &str)]) -> String {
    let error = with_env(dotenv, env).unwrap_err();
    format!("{error} {error:?}")
}

#[test]
fn the_defaults_are_the_contract_s() {
    let config = Config::default();
    assert_eq!(config.servers.known.len(), SERVERS.len());
    assert_eq!(config.bot.relays.len(), RELAYS.len());
    assert_eq!(config.bot.inbox_relays.len(), INBOX_RELAYS.len());
    assert_eq!(config.bot.index_relays.len(), INDEX_RELAYS.len());
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:7335");
}

#[test]
fn the_example_is_the_defaults() {
    let (mut example, default) = (toml(EXAMPLE).unwrap(), Config::default());
    assert!(!example.servers.known_is_default, "whoever writes the list down means it");
    example.servers.known_is_default = true;
    assert_eq!(example.bot, default.bot);
    assert_eq!(example.servers, default.servers);
    assert_eq!(example.mirror, default.mirror);
    assert_eq!(example.policy, default.policy);
    assert_eq!(example.limits, default.limits);
    assert_eq!(example.http, default.http);
    assert_eq!(example.network, default.network);
}

#[test]
fn the_examples_name_every_key_with_a_comment() {
    for (section, keys) in KEYS {
        assert!(EXAMPLE.contains(&format!("\n[{section}]\n")), "{section}");
        for key in *keys {
            let line = EXAMPLE.lines().position(|line| {
                line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("# {key} = "))
            });
            let before = EXAMPLE.lines().nth(line.unwrap() - 1).unwrap();
            assert!(before.starts_with("# "), "{key} has no comment above it");
        }
    }
    for variable in
        ["MIRROR_NSEC", "MIRROR_NSEC_FILE", "MIRROR_NPUBS", "MIRROR_ALLOWED_NPUBS", "MIRROR_SIGNER"]
    {
        assert!(ENV_EXAMPLE.contains(&format!("\n#{variable}=\n")), "{variable}");
    }
    assert!(with_env(ENV_EXAMPLE, &[]).unwrap().watched.is_empty());
    // Uncommented and still empty is unset, too.
    assert!(matches!(
        with_env(&ENV_EXAMPLE.replace("\n#MIRROR", "\nMIRROR"), &[]).unwrap().key,
        KeyFrom::DataDir
    ));
}

#[test]
fn every_listed_key_can_be_set() {
    let mut changed = EXAMPLE.to_owned();
    for (from, to) in [
        ("cycle_interval_secs = 3600", "cycle_interval_secs = 60"),
        ("alerts = true", "alerts = false"),
        ("answer_where_asked = true", "answer_where_asked = false"),
        ("discover = false", "discover = true"),
        ("publish_monitoring = false", "publish_monitoring = true"),
        ("# copies_wanted = 5", "copies_wanted = 5"),
        ("placement = \"everywhere\"", "placement = \"listed\""),
        ("hold_hours = 24", "hold_hours = 0.5"),
        ("listen = \"127.0.0.1:7335\"", "listen = \"\""),
        ("max_refs = 20000", "max_refs = 0x10"),
        ("upload_bytes_per_sec = 0", "upload_bytes_per_sec = 1048576"),
        ("retry_first_secs = 30", "retry_first_secs = 5"),
        ("retry_max_secs = 3600", "retry_max_secs = 600"),
    ] {
        assert!(changed.contains(from), "{from}");
        changed = changed.replacen(from, to, 1);
    }
    let config = toml(&changed).unwrap();
    assert_eq!(config.bot.cycle_interval, Duration::from_secs(60));
    let waits = (config.limits.retry_first, config.limits.retry_max);
    assert_eq!(waits, (Duration::from_secs(5), Duration::from_secs(600)));
    assert!(
        config.servers.discover
            && config.servers.publish_monitoring
            && !config.bot.alerts
            && !config.bot.answer_where_asked
    );
    assert_eq!((config.mirror.copies_wanted, config.mirror.reach), (Some(5), Reach::Listed));
    assert_eq!(config.mirror.hold, Duration::from_secs(1_800));
    assert_eq!((config.http.listen, config.limits.max_refs), (None, 16));
    assert_eq!(config.limits.upload_bytes_per_sec, 1 << 20);
}

#[test]
fn addresses_may_be_short_and_doubles_collapse() {
    let config = toml(
        "[servers]\nknown = [\"gitnostr.com\", \"https://GITNOSTR.com/\", \"ws://127.0.0.1:7701\"]\n\
         [bot]\nrelays = [\"nos.lol\", \"wss://nos.lol/\"]",
    )
    .unwrap();
    let known: Vec<String> = config.servers.known.iter().map(ToString::to_string).collect();
    assert_eq!(known, ["wss://gitnostr.com", "ws://127.0.0.1:7701"]);
    let relays: Vec<&str> = config.bot.relays.iter().map(RelayUrl::as_str).collect();
    assert_eq!(relays, ["wss://nos.lol"]);
}

#[test]
fn servers_that_nobody_named_are_the_program_s_own_choice() {
    for (text, by_default) in
        [("", true), ("[servers]\ndiscover = true", true), ("[servers]\nknown = [\"gitnostr.com\"]", false)]
    {
        assert_eq!(toml(text).unwrap().servers.known_is_default, by_default, "{text}");
    }
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest() {
    insta::assert_snapshot!(wrong("[limits]\n\ntransfer = 3"), @"config.toml, line 3: limits.transfer: unknown key; did you mean `transfers`?");
    insta::assert_snapshot!(wrong("[bot]\nname = \"x\"\n[limit]\n"), @"config.toml, line 3: limit: unknown section; did you mean [limits]?");
    insta::assert_snapshot!(wrong("transfers = 3"), @"config.toml, line 1: transfers: unknown key; `transfers` belongs in [limits]");
    insta::assert_snapshot!(wrong("[http]\nmax_refs = 3"), @"config.toml, line 2: http.max_refs: unknown key; `max_refs` belongs in [limits]");
    insta::assert_snapshot!(wrong("[http]\nzzz = 3"), @"config.toml, line 2: http.zzz: unknown key; expected one of listen, hosts");
    insta::assert_snapshot!(wrong("[policy]\ndeni = []"), @"config.toml, line 2: policy.deni: unknown key; did you mean `deny`?");
    insta::assert_snapshot!(wrong(&format!("[policy.\"{NPUB}\"]\nplacment = 1")), @r#"config.toml, line 2: policy."npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy".placment: unknown key; did you mean `placement`?"#);
}

#[test]
fn bad_values_say_what_would_do() {
    insta::assert_snapshot!(wrong("[limits]\ntransfers = 0"), @"config.toml, line 2: limits.transfers: expected a whole number from 1 to 256, found 0");
    insta::assert_snapshot!(wrong("[limits]\ntransfers = -1"), @"config.toml, line 2: limits.transfers: expected a whole number from 1 to 256, found -1");
    insta::assert_snapshot!(wrong("[limits]\nmax_refs = \"many\""), @r#"config.toml, line 2: limits.max_refs: expected a whole number from 1 to 1000000, found "many""#);
    insta::assert_snapshot!(wrong("[limits]\nupload_bytes_per_sec = 5"), @"config.toml, line 2: limits.upload_bytes_per_sec: expected 0 (no cap) or at least 1024, found 5");
    insta::assert_snapshot!(wrong("[mirror]\nplacement = \"all\""), @r#"config.toml, line 2: mirror.placement: expected "everywhere" or "listed", found "all""#);
    insta::assert_snapshot!(wrong("[bot]\nalerts = \"no\""), @r#"config.toml, line 2: bot.alerts: expected true or false, found "no""#);
    insta::assert_snapshot!(wrong("[servers]\ndiscover = 1"), @"config.toml, line 2: servers.discover: expected true or false, found 1");
    insta::assert_snapshot!(wrong("[servers]\nknown = [\n  \"a.b\",\n  \"ftp://x\",\n]"), @r#"config.toml, line 4: servers.known: expected a server such as "wss://host" or "wss://host/path", found "ftp://x""#);
    insta::assert_snapshot!(wrong("[bot]\nrelays = \"nos.lol\""), @r#"config.toml, line 2: bot.relays: expected a list of relays, found "nos.lol""#);
    insta::assert_snapshot!(wrong("[http]\nlisten = \"here\""), @r#"config.toml, line 2: http.listen: expected an IP address and port such as "127.0.0.1:7335" ("" = off), found "here""#);
    insta::assert_snapshot!(wrong("bot = 3"), @"config.toml, line 1: [bot]: expected a table, found 3");
    insta::assert_snapshot!(wrong("[policy]\ndeny = [\"bob\"]"), @r#"config.toml, line 2: policy.deny: expected an npub, a coordinate (30617:<pubkey in hex>:<d>, or naddr1…) or a server (wss://host), found "bob""#);
    insta::assert_snapshot!(wrong("[bot]\nname = \n"), @"config.toml, line 2: name: not TOML: string values must be quoted, expected literal string");
    insta::assert_snapshot!(wrong("[http]\n[bot]\n[http]\n"), @"config.toml, line 3: [http]: not TOML: duplicate key");
    insta::assert_snapshot!(wrong("[http]\nlisten = \"\"\nlisten = \"\""), @"config.toml, line 3: listen: not TOML: duplicate key");
}

#[test]
fn what_is_allowed_cannot_be_denied_in_the_same_file() {
    for (allow, deny) in [(NPUB, HEX), ("relay.ngit.dev", "wss://relay.ngit.dev/")] {
        let text = wrong(&format!("[policy]\nallow = [\"{allow}\"]\ndeny = [\n\"{deny}\"]"));
        let expected = format!(
            "config.toml, line 4: policy.deny: \"{deny}\" is in policy.allow, too; take it out of one of them"
        );
        assert_eq!(text, expected);
    }
}

#[test]
fn policy_tells_npubs_coordinates_and_servers_apart() {
    let text = format!(
        "[policy]\nallow = [\"{NPUB}\", \"30617:{HEX}:a:b\"]\ndeny = [\"wss://bad.example\"]\n\
         [policy.\"{NPUB}\"]\nservers = [\"relay.ngit.dev\"]\nplacement = \"listed\"\n\
         [policy.\"30617:{HEX}:a:b\"]\ncopies_wanted = 2\narchive_days = 7\nmax_repo_bytes = 4096"
    );
    let policy = toml(&text).unwrap().policy;
    let author = nostr::key::PublicKey::parse(NPUB).unwrap();
    let repository = Coordinate::new(author, "a:b");
    assert!(policy.allow.authors.contains(&author) && policy.allow.repositories.contains(&repository));
    assert!(policy.deny.servers.contains(&"bad.example".parse().unwrap()));
    let exception = policy.exception(&repository);
    assert_eq!((exception.copies_wanted, exception.reach), (Some(2), Some(Reach::Listed)));
    assert_eq!(exception.servers.unwrap().len(), 1);

    let twice = wrong(&format!("[policy.\"{NPUB}\"]\n[policy.\"{HEX}\"]\n"));
    assert!(twice.contains("line 2") && twice.contains("already"), "{twice}");
}

#[test]
fn a_real_variable_wins_over_the_file() {
    let environment = with_env(
        &format!("RUST_LOG=debug\nMIRROR_NPUBS=nonsense\nMIRROR_ALLOWED_NPUBS=\"{NPUB}, {HEX}\""),
        &[("MIRROR_NPUBS", HEX)],
    )
    .unwrap();
    assert_eq!(environment.watched.len(), 1);
    assert_eq!(environment.allowed.len(), 1);

    // The key is one thing, whichever of its two variables says it.
    let nsec = Keys::generate().secret_key().to_bech32().unwrap();
    let environment = with_env(&format!("MIRROR_NSEC={nsec}"), &[("MIRROR_NSEC_FILE", "key")]).unwrap();
    assert!(matches!(environment.key, KeyFrom::File(file) if file == Path::new("key")));
    let environment = with_env("MIRROR_NSEC_FILE=key", &[("MIRROR_NSEC", &nsec)]).unwrap();
    assert!(matches!(environment.key, KeyFrom::Value(value) if value.expose_secret() == nsec));
}

#[test]
fn people_may_be_written_in_many_ways() {
    let person = nostr::key::PublicKey::parse(NPUB).unwrap();
    let nprofile = Nip19Profile::new(person, []).to_bech32().unwrap();
    for name in [NPUB, HEX, &nprofile] {
        for prefix in ["", "nostr:", "NOSTR:"] {
            if name == HEX && !prefix.is_empty() {
                continue;
            }
            for name in [name.to_owned(), name.to_uppercase()] {
                let text = format!("{prefix}{name}");
                let environment = with_env("", &[("MIRROR_NPUBS", &text), ("MIRROR_ALLOWED_NPUBS", &text)]);
                let environment = environment.unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(
                    (environment.watched, environment.allowed),
                    (vec![person], vec![person]),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn what_belongs_elsewhere_is_told_where() {
    for (key, variable) in
        [("nsec", "MIRROR_NSEC"), ("npubs", "MIRROR_NPUBS"), ("mirror_npubs", "MIRROR_NPUBS")]
    {
        for text in [format!("[bot]\n{key} = \"x\""), format!("#\n{key} = \"x\"")] {
            let told = wrong(&text);
            assert!(told.contains("line 2") && told.contains(&format!("set {variable} in .env")), "{told}");
        }
    }
    let told = wrong("[bot]\ndata_dir = \"~/mirror\"");
    assert!(told.contains("line 2: bot.data_dir: ~ means nothing"), "{told}");
    let told = wrong("[servers]\nknown = [\"wss://me:hush@git.example\"]");
    assert!(told.contains("line 2: servers.known") && !told.contains("hush"), "{told}");
}

#[test]
fn variables_are_checked_by_name_and_line() {
    let nsec = Keys::generate().secret_key().to_bech32().unwrap();
    let unknown = env_wrong(&format!("\nMIRROR_NPUBS={NPUB}\nMIRROR_NPUB={NPUB}"), &[]);
    assert!(
        unknown.contains("line 3: MIRROR_NPUB: unknown variable; did you mean MIRROR_NPUBS?"),
        "{unknown}"
    );
    let entry = env_wrong(&format!("# people\nexport MIRROR_NPUBS={NPUB},bob"), &[]);
    assert!(entry.contains("line 2: MIRROR_NPUBS: entry 2 is no npub"), "{entry}");
    let spaced = env_wrong(&format!("# people\n\nexport MIRROR_NPUBS={NPUB} {NPUB}\n"), &[]);
    assert!(spaced.contains("line 3: MIRROR_NPUBS: expected NAME=value"), "{spaced}");
    let both = env_wrong(&format!("MIRROR_NSEC_FILE=key\nMIRROR_NSEC={nsec}"), &[]);
    assert!(both.contains("line 1: MIRROR_NSEC_FILE: MIRROR_NSEC is set too"), "{both}");
    let real = env_wrong("", &[("MIRROR_NSEC", &nsec), ("MIRROR_NSEC_FILE", "key")]);
    assert!(real.contains("environment variable MIRROR_NSEC_FILE: MIRROR_NSEC is set too"), "{real}");
    let real = env_wrong("", &[("MIRROR_NSEC", "nope")]);
    assert!(real.contains("environment variable MIRROR_NSEC: not a secret key"), "{real}");
}

#[test]
fn no_secret_is_shown() {
    let keys = Keys::generate();
    let nsec = keys.secret_key().to_bech32().unwrap();
    let bunker = format!("bunker://{}?relay=wss://nos.lol&secret=hush", keys.public_key().to_hex());
    let environment =
        with_env(&format!("MIRROR_NSEC={nsec}\nMIRROR_SIGNER=\"{nsec},{bunker}\""), &[]).unwrap();
    assert_eq!(environment.signers.len(), 2);
    assert_eq!(environment.signers.first().unwrap().expose_secret(), nsec);
    let shown = format!("{environment:?}");
    assert!(!shown.contains("nsec1") && !shown.contains("hush"), "{shown}");

    let broken = format!("{nsec}x");
    for dotenv in [
        format!("MIRROR_NSEC={broken}"),
        format!("MIRROR_NSEC={nsec} {nsec}"),
        format!("MIRROR_NSEC='{nsec}"),
        format!("MIRROR_NSEC='{nsec}\nMIRROR_NPUBS={NPUB}\n"),
        nsec.clone(),
        format!("MIRROR_NPUBS={nsec}"),
        format!("MIRROR_SIGNER={broken}"),
        "MIRROR_SIGNER=bunker://hush?secret=nsec1".to_owned(),
    ] {
        let error = env_wrong(&dotenv, &[]);
        assert!(!error.contains(&nsec) && !error.contains("hush"), "{dotenv} → {error}");
        assert!(error.contains("line 1"), "{error}");
    }
    for text in [
        format!("[policy]\ndeny = [\"{nsec}\"]"),
        format!("[policy.\"{nsec}\"]"),
        format!("[bot]\nname = [\"{nsec}\"]"),
        format!("[http]\nlisten = \"{nsec}\""),
        format!("[bot]\nname = {nsec}"),
        format!("[bot]\n{nsec}"),
        format!("[bot]\n{nsec} = 1"),
        format!("{nsec} = 1"),
    ] {
        let error = toml(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&nsec), "{error}");
    }
}

#[test]
fn the_data_folder_is_beside_the_file_unless_a_flag_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let overrides = Overrides { config_path: path.clone(), config_explicit: true, data_dir: None };
    let nothing = |_: &str| None;
    assert!(matches!(Config::load(&overrides, &nothing), Err(ConfigError::Unreadable { .. })));

    fs::write(&path, "[bot]\ndata_dir = \"state\"").unwrap();
    let config = Config::load(&overrides, &nothing).unwrap();
    assert_eq!(config.bot.data_dir, folder.path().join("state"));
    let overrides = Overrides { data_dir: Some("elsewhere".into()), ..overrides };
    assert_eq!(Config::load(&overrides, &nothing).unwrap().bot.data_dir, Path::new("elsewhere"));

    let missing = folder.path().join("gone.toml");
    let overrides = Overrides { config_path: missing, config_explicit: false, data_dir: None };
    assert_eq!(Config::load(&overrides, &nothing).unwrap().bot.data_dir, folder.path().join("data"));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String) {
        let _ = toml(&text);
        let _ = toml(&format!("[policy]\n{text}"));
        let _ = with_env(&text, &[]);
        let _ = with_env(&format!("MIRROR_NPUBS={text}"), &[]);
    }
}

#[test]
fn the_bot_s_name_and_its_hosts_are_names() {
    let config = toml("[bot]\nnip05 = \"Bot@A.example\"\n[http]\nhosts = [\"Mirror.Example\"]").unwrap();
    assert_eq!(config.bot.nip05.map(|name| name.to_string()).as_deref(), Some("bot@a.example"));
    assert_eq!(config.http.hosts, ["mirror.example"]);
    assert_eq!(toml("[bot]\nnip05 = \"\"").unwrap().bot.nip05, None);
    for (text, key) in [
        ("[bot]\nnip05 = \"nobody\"", "bot.nip05"),
        ("[bot]\nnip05 = \"a@b\"", "bot.nip05"),
        ("[http]\nhosts = [\"a.example:80\"]", "http.hosts"),
        ("[http]\nhosts = [\"https://a.example\"]", "http.hosts"),
        ("[http]\nhosts = \"a.example\"", "http.hosts"),
    ] {
        let said = wrong(text);
        assert!(said.starts_with(&format!("config.toml, line 2: {key}: ")), "{said}");
    }
}
