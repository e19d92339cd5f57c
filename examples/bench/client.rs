//! Our client and the servers that only take, each as a process of its own.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use grasp_mirror::{
    git::{
        Repository,
        wire::{GitHttp, Limits, commands_to, http_client_builder},
    },
    transfer::supply::Supply,
};
use grasp_mirror_testkit::{Cost, Sink, Taken, own_cpu, peak_rss, tools};
use serde_json::{Value, json};

/// Pushes the heads and tags of a bare repository to all URLs at once, as the transfer does.
#[derive(Debug, Args)]
pub struct Push {
    repository: PathBuf,
    /// The certificate to trust, for https
    #[arg(long)]
    certificate: Option<PathBuf>,
    urls: Vec<String>,
}

/// Does what [`Push`] says, and prints what it cost from opening the repository on.
pub async fn push(push: &Push) -> Result<()> {
    let mut client = http_client_builder(Duration::from_secs(10), None);
    if let Some(file) = &push.certificate {
        client = client.tls_certs_only([reqwest::Certificate::from_pem(&fs::read(file)?)?]);
    }
    let client = client.build()?;
    let http = GitHttp::new(client, Limits::default());
    let before = own_cpu();
    let repository = Repository::open_or_create(&push.repository)?;
    let refs = repository.refs()?;
    let wants: Vec<_> = refs.values().copied().collect();
    let supply = Supply::of(repository);
    let pushes = push.urls.iter().map(|url| async {
        let server = http.receive_pack_refs(&url.parse()?).await?;
        let pack = supply.pack_for(&wants, &server.haves()).await?;
        http.push(&server, &commands_to(&server.refs, &refs), &pack).await?;
        anyhow::Ok(())
    });
    futures::future::try_join_all(pushes).await?;
    let cpu_us = (own_cpu() - before).as_micros();
    println!("{} {}", cpu_us, peak_rss(std::process::id()).context("no VmHWM")?);
    Ok(())
}

/// What our client costs to push `repository` to all of `urls`.
pub async fn cost(repository: &Path, certificate: Option<&Path>, urls: &[String]) -> Result<Cost> {
    let mut command = Command::new(env::current_exe()?);
    tools::isolate(&mut command, repository);
    command.arg("client").arg(repository).args(urls);
    if let Some(file) = certificate {
        command.arg("--certificate").arg(file);
    }
    let printed = tools::must(command).await;
    let (cpu, peak) = printed.trim().split_once(' ').context("no figures")?;
    Ok(Cost { cpu: Duration::from_micros(cpu.parse()?), peak_kib: peak.parse()? })
}

/// Serves sinks until standard input ends; each line of it asks what was taken since the last one.
#[derive(Debug, Args)]
pub struct Serve {
    servers: usize,
    /// `git for-each-ref` output: the refs of `/behind.git`
    refs: PathBuf,
    /// Serve https, and write the certificate there
    #[arg(long)]
    certificate: Option<PathBuf>,
}

/// Does what [`Serve`] says.
pub async fn serve(serve: Serve) -> Result<()> {
    let refs: BTreeMap<String, String> = serde_json::from_slice(&fs::read(&serve.refs)?)?;
    let sink = match serve.certificate {
        None => Sink::start(serve.servers, refs).await,
        Some(file) => {
            let (sink, certificate) = Sink::start_tls(serve.servers, refs).await;
            fs::write(file, certificate)?;
            sink
        }
    };
    println!("{}", json!([sink.urls("empty"), sink.urls("behind")]));
    // Off the threads that serve.
    tokio::task::spawn_blocking(move || {
        for line in io::stdin().lines() {
            line?;
            let taken = sink.take();
            println!("{}", json!([taken.requests, taken.up_bytes, taken.down_bytes]));
        }
        Ok(())
    })
    .await?
}

/// Sinks in a process of their own; it ends when this is dropped.
pub struct Sinks {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Repositories that have nothing, one a server.
    pub empty: Vec<String>,
    /// Repositories that have the given refs.
    pub behind: Vec<String>,
    /// What to trust, for https.
    pub certificate: Option<PathBuf>,
}

impl Sinks {
    /// So many servers; `folder` is for their files.
    pub fn start(servers: usize, refs: &BTreeMap<String, String>, tls: bool, folder: &Path) -> Result<Self> {
        let file = folder.join("refs.json");
        fs::write(&file, serde_json::to_vec(refs)?)?;
        let certificate = tls.then(|| folder.join("certificate.pem"));
        let mut command = Command::new(env::current_exe()?);
        command.arg("sink").arg(servers.to_string()).arg(file);
        if let Some(file) = &certificate {
            command.arg("--certificate").arg(file);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut sinks = Self { child, input, output, empty: Vec::new(), behind: Vec::new(), certificate };
        let [empty, behind]: [Vec<String>; 2] = serde_json::from_value(sinks.line()?)?;
        (sinks.empty, sinks.behind) = (empty, behind);
        Ok(sinks)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("the sink has ended")
    }

    /// What came since this was asked last.
    pub fn take(&mut self) -> Result<Taken> {
        let input = self.input.as_mut().context("the sink has ended")?;
        writeln!(input)?;
        let [requests, up_bytes, down_bytes] = serde_json::from_value(self.line()?)?;
        Ok(Taken { requests, up_bytes, down_bytes })
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.input.take();
        self.child.wait().ok();
    }
}
