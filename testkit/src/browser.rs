//! A real browser (headless Chromium), driven through `testkit/node/browser.mjs`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::tools;

/// From one order to its answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(150);

/// A browser with one page; closed when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _home: TempDir,
}

impl Browser {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not start; with what to do.
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let installed = tools::node_folder("playwright-core");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/browser.mjs");
        let mut command = std::process::Command::new("node");
        tools::isolate(&mut command, home.path());
        let mut command = Command::from(command);
        command
            .current_dir(installed)
            .arg(script)
            .env("CHROMIUM", tools::chromium())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers).lines(), _home: home }
    }

    async fn order(&mut self, order: &Value) -> Value {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = timeout(ANSWERS_WITHIN, self.answers.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no answer to {order}")).unwrap();
        let line = line.unwrap_or_else(|| panic!("the browser ended at {order}"));
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{order}: {}", answer["error"].as_str().unwrap_or_default());
        answer["value"].clone()
    }

    /// Opens a fresh page of this size, in a `light` or `dark` colour scheme.
    pub async fn window(&mut self, width: u32, height: u32, scheme: &str) {
        self.order(&json!({ "do": "window", "width": width, "height": height, "scheme": scheme })).await;
    }

    /// Goes to `url` and waits until an element fits `selector`.
    pub async fn visit(&mut self, url: &str, selector: &str) {
        self.order(&json!({ "do": "visit", "url": url, "selector": selector })).await;
    }

    /// Waits until the expression is true in the page.
    pub async fn wait(&mut self, expression: &str) {
        self.order(&json!({ "do": "wait", "expression": expression })).await;
    }

    /// What the expression is in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        self.order(&json!({ "do": "value", "expression": expression })).await
    }

    /// Presses a key, such as `Tab` or `ArrowDown`.
    pub async fn press(&mut self, key: &str) {
        self.order(&json!({ "do": "press", "key": key })).await;
    }

    /// Types text.
    pub async fn write(&mut self, text: &str) {
        self.order(&json!({ "do": "type", "text": text })).await;
    }

    /// Points at the first element that fits.
    pub async fn point_at(&mut self, selector: &str) {
        self.order(&json!({ "do": "hover", "selector": selector })).await;
    }

    /// Clicks on the first element that fits.
    pub async fn click(&mut self, selector: &str) {
        self.order(&json!({ "do": "click", "selector": selector })).await;
    }

    /// Takes a picture: `target/screenshots/<name>.png`.
    pub async fn picture(&mut self, name: &str) {
        let folder = screenshots();
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        self.order(&json!({ "do": "picture", "path": path })).await;
    }

    /// What axe-core finds fault with, and whatever the page's scripts complained of since it was opened.
    pub async fn faults(&mut self) -> Value {
        self.order(&json!({ "do": "faults" })).await
    }

    /// What the page's scripts complained of since it was opened, and what it asked of anybody else.
    pub async fn complaints(&mut self) -> Value {
        self.order(&json!({ "do": "complaints" })).await
    }

    /// By how many pixels the page is wider than the window.
    pub async fn overflow(&mut self) -> i64 {
        let page = "document.documentElement";
        self.value(&format!("{page}.scrollWidth - {page}.clientWidth")).await.as_i64().unwrap()
    }

    /// Closes it in good order.
    pub async fn close(mut self) {
        drop(self.orders);
        let _ = timeout(ANSWERS_WITHIN, self.child.wait()).await;
    }
}

fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/screenshots")
}
