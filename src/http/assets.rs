//! The dashboard's files, in the binary. No build step makes them, and they ask nobody else for anything.

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Where it is, what it is, and the text.
const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/dashboard.js", SCRIPT, include_str!("assets/dashboard.js")),
    ("/dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("/matrix.js", SCRIPT, include_str!("assets/matrix.js")),
    ("/pages.js", SCRIPT, include_str!("assets/pages.js")),
    ("/plots.js", SCRIPT, include_str!("assets/plots.js")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// Answers with the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(move || async move { file(content_type, text) }))
    })
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    // Another version of the program has others.
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}
