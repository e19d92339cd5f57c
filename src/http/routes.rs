//! What is answered where.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    middleware,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
    routing::get,
};
use nostr::prelude::{FromBech32, PublicKey, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::{
    Library, Names, assets,
    gate::{self, Gate},
    live::Live,
};
use crate::{
    model::coordinate::Coordinate,
    plan::progress::Progress,
    report::{
        Report,
        health::{self, Health},
        metrics, page,
    },
};

/// Questions to the store at a time.
const LOOK_UPS: usize = 4;

/// An event stream says at least so often that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone)]
struct Site {
    live: Arc<Live>,
    names: watch::Receiver<Names>,
    library: Arc<dyn Library>,
    look_ups: Arc<Semaphore>,
}

pub(super) fn router(
    live: Arc<Live>,
    names: watch::Receiver<Names>,
    library: Arc<dyn Library>,
    loopback: bool,
) -> Router {
    let site = Site { live, names: names.clone(), library, look_ups: Arc::new(Semaphore::new(LOOK_UPS)) };
    Router::new()
        .merge(assets::routes())
        .route("/api/status.json", get(status))
        .route("/api/mirrors.json", get(mirrors))
        .route("/api/servers.json", get(servers))
        .route("/api/repos/{npub}/{file}", get(repository))
        .route("/api/events", get(events))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(numbers))
        .route("/.well-known/nostr.json", get(nostr_json))
        .fallback(|| async { nothing() })
        .with_state(site)
        .layer(middleware::from_fn_with_state(Gate { loopback, names }, gate::pass))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => broken(&error.to_string()),
    }
}

fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "There is nothing here. The dashboard is at /.\n").into_response()
}

fn broken(reason: &str) -> Response {
    tracing::error!(reason, "a page could not be made");
    (StatusCode::INTERNAL_SERVER_ERROR, "The store failed; the log says why.\n").into_response()
}

fn now() -> u64 {
    Timestamp::now().as_secs()
}

/// The report, and how far the running cycle is: as `status --json` says it.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

async fn status(State(site): State<Site>) -> Response {
    let picture = &site.live.edition().picture;
    let progress = match picture.running {
        Some(_) => site.library.progress().await.unwrap_or_default(),
        None => None,
    };
    json(StatusCode::OK, &Status { report: &picture.report, progress })
}

async fn mirrors(State(site): State<Site>) -> Response {
    match site.live.edition().everything() {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => broken(&error.to_string()),
    }
}

async fn servers(State(site): State<Site>) -> Response {
    let columns = site.live.edition().picture.columns();
    let Ok(_turn) = site.look_ups.acquire().await else { return nothing() };
    match site.library.scoreboards(columns).await {
        Ok(boards) => json(StatusCode::OK, &page::server_plots(boards, now())),
        Err(error) => broken(&error),
    }
}

async fn repository(State(site): State<Site>, Path((npub, file)): Path<(String, String)>) -> Response {
    let named = PublicKey::from_bech32(&npub).ok().zip(file.strip_suffix(".json"));
    let Some((owner, identifier)) = named else { return nothing() };
    let coordinate = Coordinate::new(owner, identifier);
    let picture = site.live.edition().picture.clone();
    if picture.row(&coordinate).is_none() {
        return nothing();
    }
    let Ok(_turn) = site.look_ups.acquire().await else { return nothing() };
    match site.library.page(picture, coordinate).await {
        Ok(Some(page)) => json(StatusCode::OK, &page),
        Ok(None) => nothing(),
        Err(error) => broken(&error),
    }
}

async fn events(State(site): State<Site>) -> Response {
    match site.live.listen() {
        Some(stream) => Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)).into_response(),
        None => {
            let later = [(header::RETRY_AFTER, "30")];
            (StatusCode::SERVICE_UNAVAILABLE, later, "Too many listen already.\n").into_response()
        }
    }
}

fn answer(health: &Health) -> Response {
    json(if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, health)
}

async fn healthz(State(site): State<Site>) -> Response {
    answer(&health::of(&site.live.edition().picture, now()))
}

async fn readyz(State(site): State<Site>) -> Response {
    answer(&health::readiness(&site.live.edition().picture))
}

async fn numbers(State(site): State<Site>) -> Response {
    let edition = site.live.edition();
    let columns = edition.picture.columns();
    let Ok(_turn) = site.look_ups.acquire().await else { return nothing() };
    // The numbers that are not in the store are good without those that are.
    let boards = site.library.scoreboards(columns).await.unwrap_or_default();
    match metrics::text(&edition.picture, &boards, now()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => broken(&error.to_string()),
    }
}

#[derive(Deserialize)]
struct Asked {
    name: Option<String>,
}

/// NIP-05. Other people's clients read it from their own pages.
async fn nostr_json(State(site): State<Site>, Query(asked): Query<Asked>) -> Response {
    let names = site.names.borrow().clone();
    let Some(nip05) = names.nip05 else { return nothing() };
    let key = site.live.edition().picture.bot.key.to_hex();
    let is_meant = asked.name.is_none_or(|name| name.eq_ignore_ascii_case(&nip05.name));
    let document = if is_meant {
        serde_json::json!({ "names": { nip05.name: &key }, "relays": { &key: names.relays } })
    } else {
        serde_json::json!({ "names": {} })
    };
    let anyone = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (anyone, json(StatusCode::OK, &document)).into_response()
}
