// Reads what there is, draws the page that the address names, and keeps it current.

import { ago, copy, h, now, setClock, shortNpub, span, until } from "./dom.js";
import { matrix, order, prepare, setUnused } from "./matrix.js";
import { repository, servers } from "./pages.js";

const state = { edition: 0, header: null, rows: [], progress: null, connected: true };
const byId = (id) => document.getElementById(id);
const main = byId("main");
let page = null;

const tip = {
  show(cell) {
    const said = cell?.said;
    if (!said) return tip.hide();
    const box = byId("tip");
    box.replaceChildren(...said.map((line) => h("p", {}, h("bdi", {}, line))));
    box.hidden = false;
    const at = cell.getBoundingClientRect();
    const [width, height] = [box.offsetWidth, box.offsetHeight];
    const below = at.bottom + 8 + height < innerHeight;
    box.style.left = `${Math.max(8, Math.min(at.left + at.width / 2 - width / 2, innerWidth - width - 8))}px`;
    box.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - height - 6)}px`;
  },
  // What nobody points at any more may still have the focus.
  rest() {
    tip.show(document.activeElement);
  },
  hide() {
    byId("tip").hidden = true;
  },
};

function text(element, words) {
  // Said again only when it is something else.
  if (element.textContent !== words) element.textContent = words;
}

function phaseWords(header) {
  if (!state.connected) return "Connection lost; trying again";
  if (header.phase === "paused") return "Paused";
  if (header.phase === "starting") return "Starting";
  if (header.running) {
    const { progress } = state;
    const far = progress?.repos ? `, ${progress.done.toLocaleString("en")} of ${progress.repos.toLocaleString("en")}` : "";
    return header.cycle.number ? `Checking${far}` : `First check${far}`;
  }
  if (header.phase === "failing") return "Failing";
  const next = header.cycle.next_at ? `, next ${until(header.cycle.next_at)}` : "";
  return `Checked ${ago(header.cycle.finished_at)}${next}`;
}

function drawHeader() {
  const { header } = state;
  if (!header) return;
  text(byId("bot-name"), header.bot.nip05 ? `${header.bot.name} (${header.bot.nip05})` : header.bot.name);
  drawNpub(header.bot.npub);
  text(byId("software"), header.software);
  byId("phase").dataset.state = state.connected ? header.phase : "lost";
  text(byId("phase-text"), phaseWords(header));
  const problem = banner(header);
  byId("banner").hidden = !problem;
  if (problem) {
    byId("banner").dataset.kind = problem.kind;
    text(byId("banner"), problem.words);
  }
}

// Whom to write to: the whole of it is what a press gives.
function drawNpub(npub) {
  const button = byId("bot-npub");
  if (button.title === npub) return;
  const words = button.firstChild;
  button.title = npub;
  button.hidden = false;
  text(words, shortNpub(npub));
  button.onclick = async () => {
    const copied = await copy(npub);
    // Browsers copy only on pages they trust; then it is there to be selected.
    text(words, copied ? "Copied" : npub);
    if (copied) setTimeout(() => text(words, shortNpub(npub)), 2000);
  };
}

function banner(header) {
  const last = header.health.last_good_at;
  const stale = last && now() - last >= 3 * header.interval_secs;
  const since = stale ? ` The last good check was ${span(now() - last)} ago; what is shown here is as old.` : "";
  if (header.failed) return { kind: "bad", words: `The last check failed: ${header.failed.reason}.${since}` };
  if (header.phase === "paused") return { kind: "warn", words: `The bot was told to pause and writes to no server until somebody sends: resume.${since}` };
  if (stale) return { kind: "bad", words: since.trim() };
  if (header.silent_inboxes.length) {
    return { kind: "warn", words: `No messages come from ${header.silent_inboxes.join(", ")}: what was sent there to the bot itself did not arrive.` };
  }
  return null;
}

let drawing = false;
function draw() {
  drawHeader();
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    page?.render();
  });
}

function take(news) {
  const { repos, gone, edition, ...header } = news;
  state.header = header;
  state.edition = edition;
  setUnused(header);
  return repos.map(prepare);
}

async function readAll() {
  const answer = await fetch("/api/mirrors.json");
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  setClock(answer.headers.get("date"));
  state.rows = take(await answer.json()).sort(order);
  if (page) draw();
  else open();
}

let reading = null;
function readAgain() {
  reading ??= readAll()
    .catch(() => setTimeout(readAgain, 3000))
    .finally(() => (reading = null));
  return reading;
}

function listen() {
  const source = new EventSource("/api/events");
  const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  source.addEventListener("open", () => {
    state.connected = true;
    drawHeader();
  });
  source.addEventListener("error", () => {
    state.connected = false;
    drawHeader();
    // The browser tries again by itself, unless it was told no.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
  });
  on("edition", (edition) => {
    if (edition !== state.edition) readAgain();
  });
  on("reload", readAgain);
  on("progress", (progress) => {
    state.progress = progress;
    drawHeader();
  });
  on("changed", (news) => {
    if (news.edition <= state.edition) return;
    if (news.edition !== state.edition + 1) return readAgain();
    const changed = new Map(take(news).map((row) => [row.key, row]));
    const gone = new Set(news.gone.map(([npub, d]) => `${npub}/${d}`));
    if (!state.header.running) state.progress = null;
    if (changed.size || gone.size) {
      const kept = state.rows.filter((row) => !gone.has(row.key) && !changed.has(row.key));
      state.rows = [...kept, ...changed.values()].sort(order);
    }
    draw();
  });
}

function open() {
  const [, kind, npub, d] = /^#\/(r|servers)?(?:\/([^/]*)\/(.*))?$/.exec(location.hash) ?? [];
  tip.hide();
  if (!state.header) return;
  let title = "grasp-mirror";
  if (kind === "r" && npub && d) {
    const name = plain(d);
    page = repository(npub, name);
    title = `${name} · grasp-mirror`;
  } else if (kind === "servers") {
    page = servers(state);
    title = "Servers · grasp-mirror";
  } else {
    page = matrix(state, tip);
  }
  document.title = title;
  byId("nav-repos").toggleAttribute("aria-current", kind !== "servers");
  byId("nav-servers").toggleAttribute("aria-current", kind === "servers");
  for (const link of document.querySelectorAll("nav a[aria-current]")) link.setAttribute("aria-current", "page");
  byId("page").replaceChildren(page.element);
  page.render();
}

function plain(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

addEventListener("hashchange", () => {
  // "Skip to the content" is no page.
  if (location.hash === "#main") return main.focus();
  open();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hide();
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) {
    const filter = byId("filter");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  }
});
addEventListener("scroll", tip.rest, { passive: true, capture: true });
// Ages grow.
setInterval(() => !document.hidden && draw(), 30000);
readAgain().then(listen);
