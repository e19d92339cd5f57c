// The page of one repository, and the page of the servers.

import { STATUSES, ago, clock, command, count, h, host, letterOf, quoted, setClock, sign, time, until } from "./dom.js";
import { caption, errors, latency, timeline } from "./plots.js";

async function read(url) {
  const answer = await fetch(url);
  setClock(answer.headers.get("date"));
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

// Draws what `url` says, again and again; what a person opened stays open.
function drawn(element, url, draw) {
  let turn = 0;
  return async () => {
    turn += 1;
    const mine = turn;
    try {
      const document = await read(url);
      if (mine !== turn) return;
      const open = [...element.querySelectorAll("details[open]")].map((details) => details.dataset.of);
      const focus = element.contains(window.document.activeElement) ? label(window.document.activeElement) : null;
      element.replaceChildren(draw(document));
      for (const details of element.querySelectorAll("details")) details.open = open.includes(details.dataset.of);
      if (focus) [...element.querySelectorAll("a, button, summary, code")].find((other) => label(other) === focus)?.focus();
    } catch (error) {
      if (mine === turn && !element.children.length) {
        element.replaceChildren(h("p", { class: "empty" }, h("strong", {}, "It cannot be read now"), String(error.message)));
      }
    }
  };
}
const label = (element) => element.getAttribute("aria-label") ?? element.textContent;

export function repository(npub, d) {
  const element = h("div", {});
  const url = `/api/repos/${npub}/${encodeURIComponent(d)}.json`;
  const render = drawn(element, url, (page) => (page ? repositoryPage(page) : missing(d)));
  return { element, render, key: `${npub}/${d}` };
}

const back = () => h("a", { class: "back", href: "#/" }, "← All repositories");

function missing(d) {
  return h("div", {}, back(), h("h1", {}, quoted(d)), h("p", { class: "lead" }, "This repository is not one of those that are mirrored."));
}

function repositoryPage(page) {
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const state = page.mirrors.find((mirror) => mirror.state)?.state;
  return h("div", {}, back(), h("h1", {}, quoted(page.d)),
    (page.name && page.name !== page.d || page.description) && h("p", { class: "lead" },
      page.name && page.name !== page.d && quoted(page.name), page.name && page.name !== page.d && page.description && " · ",
      page.description && quoted(page.description)),
    h("dl", { class: "facts" },
      fact("Copies", `${page.copies} of ${page.wanted} verified`),
      fact("Owner", h("code", {}, page.npub)),
      state && fact("State", h("code", {}, state.slice(0, 16), "…")),
      page.deep_checked_at && fact("Refs last compared", time(page.deep_checked_at)),
      page.rewritten_at && fact("History rewritten", time(page.rewritten_at))),
    notes(page),
    h("h2", {}, "Clone"), h("p", { class: "soft" }, "From wherever it is, with ngit's git-remote-nostr; or from one server, with git alone, below."),
    command(`git clone ${page.nostr_url}`),
    h("h2", {}, "Servers"),
    page.mirrors.length
      ? h("ul", { class: "mirrors" }, page.mirrors.map(mirror))
      : h("p", { class: "empty" }, "There is nothing to mirror: the repository is empty."),
    archive(page));
}

function notes(page) {
  const lines = page.notes.map((note) => h("li", {}, quoted(note)));
  if (page.held) {
    lines.unshift(h("li", {}, `A new state removes ${page.held.removed} of ${page.held.of} branches and tags. It is held until ${clock(page.held.until)}, unless somebody sends approve or reject.`));
  }
  return lines.length ? h("ul", { class: "notes" }, lines) : null;
}

function mirror(one) {
  const letter = letterOf(one.status);
  const seen = one.read_back_at ? h("span", {}, "read back ", time(one.read_back_at)) : "never seen there";
  return h("li", {},
    h("div", { class: "mirror-head" }, sign(letter), h("h3", {}, one.host),
      h("span", { class: `word ${letter}` }, STATUSES[letter].word), h("span", { class: "soft" }, one.placement),
      h("span", { class: "when" }, seen)),
    one.reason && h("p", { class: "reason" }, quoted(one.reason)),
    letter !== "i" && h("p", { class: "soft" }, "since ", time(one.since),
      one.retry_at && `, next try ${until(one.retry_at)}`,
      one.failures > 1 && `, failed ${one.failures} times in a row`),
    letter === "i" || one.read_back_at ? command(`git clone ${one.clone_url}`) : null,
    one.history.length ? timeline(one.history) : null,
    one.history.length ? changes(one) : null);
}

function changes(one) {
  const lines = [...one.history].reverse().map((change) => {
    const letter = letterOf(change.status);
    return h("li", {}, time(change.at, clock(change.at)), h("span", { class: `word ${letter}` }, STATUSES[letter].word),
      change.reason && quoted(change.reason), change.state && h("code", { class: "soft" }, change.state.slice(0, 12)));
  });
  return h("details", { "data-of": one.server }, h("summary", {}, count(one.history.length, "change", "changes")),
    h("ul", { class: "log" }, lines));
}

function archive(page) {
  if (!page.archived) return null;
  const lines = page.archive.map((tip) => h("tr", {}, h("td", {}, time(tip.at, clock(tip.at))), h("td", {}, quoted(tip.name)),
    h("td", {}, h("code", {}, tip.tip.slice(0, 12))), h("td", {}, `until ${clock(tip.until)}`)));
  const more = page.archived - page.archive.length;
  return h("section", {}, h("h2", {}, "Kept of rewritten and deleted branches and tags"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Old tips" }, h("table", { class: "archive" },
      h("thead", {}, h("tr", {}, ["When", "Ref", "Tip", "Kept"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, lines))),
    more > 0 && h("p", { class: "soft" }, `and ${more} more`));
}

export function servers(state) {
  const element = h("div", {});
  const render = drawn(element, "/api/servers.json", (plots) => {
    const known = new Map((plots ?? []).map((plot) => [plot.server, plot]));
    const swatch = (kind, text) => h("li", {}, h("span", { class: `swatch ${kind}` }), text);
    return h("div", {}, h("h1", {}, "Servers"),
      h("p", { class: "soft lead" }, "Numbers: the last 7 days. Plots: the last 24 hours. Every check asks each server who it is (NIP-11)."),
      h("ul", { class: "plotkey", "aria-label": "Colours" }, swatch("latency", "time to answer"), swatch("unanswered", "unanswered"),
        swatch("failures", "failed mirrors"), swatch("refusals", "refusals")),
      state.header.servers.length
        ? h("ul", { class: "servers" }, [...state.header.servers].sort(downFirst).map((server) => card(server, known.get(server.url))))
        : h("p", { class: "empty" }, h("strong", {}, "No servers yet"), "They are asked who they are when the first look begins."));
  });
  return { element, render };
}

const rank = (server) => (server.unused ? 2 : server.reachable ? 1 : 0);
const downFirst = (a, b) => rank(a) - rank(b);

function card(server, plot) {
  const up = !server.unused && server.reachable;
  const word = server.unused ? "not used" : up ? "up" : "down";
  const week = plot?.week;
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const reached = week?.asked ? `${((100 * (week.answered ?? 0)) / week.asked).toFixed(week.answered === week.asked ? 0 : 1)} %` : null;
  return h("li", { class: "server" },
    h("div", { class: "mirror-head" }, sign(server.unused ? "b" : up ? "i" : "u"), h("h2", {}, host(server.url)),
      h("span", { class: `word ${server.unused ? "b" : up ? "i" : "u"}` }, word)),
    server.software && h("p", { class: "soft" }, quoted(server.software)),
    server.unused && h("p", { class: "reason" }, quoted(server.unused)),
    h("dl", { class: "facts" },
      fact("In sync now", `${server.in_sync.toLocaleString("en")} of ${server.mirrors.toLocaleString("en")}`),
      reached && fact("Answered", reached),
      week?.answered && fact("Mean time", `${Math.round(week.latency_ms / week.answered)} ms`),
      week && fact("Failed / refused", `${week.failures ?? 0} / ${week.refusals ?? 0}`)),
    plot ? [latency(plot.slots), errors(plot.slots), caption("24 h ago")] : null);
}
