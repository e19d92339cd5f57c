// The first page: totals, redundancy, and every repository on every server.

import { STATUSES, ago, count, h, host, quoted, repoLink, shortNpub, sign, span, now, until } from "./dom.js";

const PAGE = 100;
const BUCKETS = [
  { name: "no copy", has: (copies) => copies === 0 },
  { name: "1 copy", has: (copies) => copies === 1 },
  { name: "2 copies", has: (copies) => copies === 2 },
  { name: "3–4 copies", has: (copies) => copies === 3 || copies === 4 },
  { name: "5 and more", has: (copies) => copies >= 5 },
];

// What the person chose; it stays when they come back from a repository.
const view = { filter: "", only: null, page: 0, at: null };

export function prepare(row) {
  const copies = [...row.s].filter((letter) => letter === "i").length;
  const whys = Object.values(row.why ?? {}).map((why) => why.reason);
  const words = new Set([...row.s].map((letter) => STATUSES[letter]?.word).filter(Boolean));
  const text = [row.d, row.npub, ...(row.notes ?? []), ...whys, ...words, row.held ? "held" : ""].join("\n");
  return { ...row, key: `${row.npub}/${row.d}`, copies, text: text.toLowerCase() };
}

// What a rule keeps away from a server is no problem there.
let unused = new Set();
export function setUnused({ columns, servers }) {
  const urls = new Set(servers.filter((server) => server.unused).map((server) => server.url));
  unused = new Set(columns.flatMap((url, column) => (urls.has(url) ? [column] : [])));
}
const hasProblem = (row) =>
  Boolean(row.held) || row.copies < row.wanted ||
  row.wanted > 0 && [...row.s].some((letter, column) => letter !== "i" && letter !== "." && !unused.has(column));

const names = new Intl.Collator("en", { numeric: true });

// Problems first, the fewest copies first among them.
export function order(a, b) {
  const ill = hasProblem(a);
  if (ill !== hasProblem(b)) return ill ? -1 : 1;
  if (ill && a.copies !== b.copies) return a.copies - b.copies;
  return names.compare(a.d, b.d) || (a.npub < b.npub ? -1 : 1);
}

export function matrix(state, tip) {
  const list = h("div", {});
  const search = h("input", {
    type: "search", id: "filter", value: view.filter, placeholder: "Filter by name, owner, status or reason",
    autocomplete: "off", spellcheck: "false",
  });
  let waiting = null;
  search.addEventListener("input", () => {
    view.filter = search.value;
    view.page = 0;
    // Whoever types fast is not held up by a list at each letter.
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      renderList();
    });
  });
  const summary = h("span", { class: "count", role: "status", id: "count" });
  const pager = h("div", { class: "pager", hidden: true });
  const totals = h("div", {});
  const tools = h("div", { class: "tools" },
    h("label", {}, h("span", { class: "hidden" }, "Filter repositories"), search), summary, pager);
  const signs = key();
  const board = h("div", { class: "board" }, list, signs);
  const alone = h("div", {});
  const element = h("div", {}, h("h1", { class: "hidden" }, "Repositories"), totals, tools, board, alone);

  function chosen() {
    const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    return state.rows.filter((row) => {
      if (view.only === "problems" && !hasProblem(row)) return false;
      if (typeof view.only === "number" && !(row.wanted > 0 && BUCKETS[view.only].has(row.copies))) return false;
      return words.every((word) => row.text.includes(word));
    });
  }

  function renderTotals() {
    const { header } = state;
    const chips = buckets(header, state.rows, () => {
      view.page = 0;
      render();
    });
    const focused = totals.contains(document.activeElement) ? document.activeElement.id : null;
    totals.replaceChildren(...[sums(header), chips].filter(Boolean));
    if (focused) document.getElementById(focused)?.focus();
  }

  function renderList() {
    // Replacing what has the focus loses it.
    const focused = list.contains(document.activeElement);
    const rows = chosen();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    view.page = Math.min(view.page, pages - 1);
    const from = view.page * PAGE;
    const shown = rows.slice(from, from + PAGE);
    const all = count(state.rows.length, "repository", "repositories");
    summary.textContent = rows.length === state.rows.length ? all : `${rows.length.toLocaleString("en")} of ${all}`;
    renderPager(pages, rows.length, from, shown.length);
    tools.hidden = !state.rows.length;
    signs.hidden = !rows.length;
    // Beside the names of the servers, where there is room.
    board.classList.toggle("roomy", state.header.columns.length <= 14);
    if (!state.rows.length) list.replaceChildren(nothing(state.header));
    else if (!rows.length) list.replaceChildren(h("p", { class: "empty" }, h("strong", {}, "Nothing fits"), "Another filter may."));
    else list.replaceChildren(table(shown));
    if (focused) (find(view.at) ?? list.querySelector("[data-column]") ?? search).focus({ preventScroll: true });
  }

  let told = "";
  function renderAlone() {
    // Only when it is something else: what a person opened stays open.
    const { left_alone: left, not_found: missing } = state.header;
    const news = JSON.stringify([left, missing]);
    if (news === told) return;
    told = news;
    alone.replaceChildren(...[leftAlone(left), notFound(missing)].filter(Boolean));
  }

  function renderPager(pages, total, from, shown) {
    pager.hidden = pages < 2;
    const turn = (by) => () => {
      view.page += by;
      renderList();
      list.scrollIntoView({ block: "nearest" });
    };
    const range = `${(from + 1).toLocaleString("en")}–${(from + shown).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    const focused = pager.contains(document.activeElement) ? document.activeElement.id : null;
    pager.replaceChildren(
      h("span", { class: "soft" }, range),
      h("button", { type: "button", id: "previous", disabled: view.page === 0, onclick: turn(-1) }, "Previous"),
      h("button", { type: "button", id: "next", disabled: view.page >= pages - 1, onclick: turn(1) }, "Next"));
    if (focused) document.getElementById(focused)?.focus();
  }

  function table(shown) {
    const { columns, servers } = state.header;
    const known = new Map(servers.map((server) => [server.url, server]));
    const heads = columns.map((url) => {
      const server = known.get(url);
      const down = server && !server.unused && !server.reachable;
      return h("th", { scope: "col", class: down ? "host down" : "host" },
        h("span", { title: host(url) }, down ? `↓ ${host(url)}` : host(url)));
    });
    const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Repository"),
      h("th", { scope: "col", class: "copies" }, "Copies"), heads));
    const body = h("tbody", {}, shown.map((row) => line(row, columns)));
    const grid = h("table", { class: "matrix", role: "grid", "aria-label": "Repositories on servers" }, head, body);
    grid.addEventListener("keydown", move);
    grid.addEventListener("focusin", (event) => {
      const at = event.target.closest("[data-column]");
      if (!at) return;
      view.at = { key: at.closest("tr").dataset.key, column: at.dataset.column };
      for (const other of grid.querySelectorAll("tbody [tabindex='0']")) other.tabIndex = -1;
      at.tabIndex = 0;
      tip.show(at);
    });
    grid.addEventListener("focusout", tip.hide);
    grid.addEventListener("pointerover", (event) => tip.show(event.target.closest("td.cell") ?? document.activeElement));
    grid.addEventListener("pointerleave", tip.rest);
    const first = body.querySelector("[data-column]");
    if (first) first.tabIndex = 0;
    return h("div", { class: "scroll" }, grid);
  }

  function find(at) {
    const row = [...list.querySelectorAll("tbody tr")].find((row) => row.dataset.key === at?.key);
    return row?.querySelector(`[data-column="${at.column}"]`);
  }

  function render() {
    renderTotals();
    renderList();
    renderAlone();
  }
  render();
  return { element, render };
}

// Arrow keys go from cell to cell, as in any grid; Enter opens the repository.
function move(event) {
  const at = event.target.closest("[data-column]");
  if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
  const row = at.closest("tr");
  const cells = [...row.querySelectorAll("[data-column]")];
  const column = cells.indexOf(at);
  const beside = (other) => other?.querySelectorAll("[data-column]")[column];
  const rows = [...row.parentElement.children];
  const place = rows.indexOf(row);
  const to = {
    ArrowRight: () => cells[column + 1],
    ArrowLeft: () => cells[column - 1],
    ArrowDown: () => beside(rows[place + 1]),
    ArrowUp: () => beside(rows[place - 1]),
    PageDown: () => beside(rows[Math.min(place + 10, rows.length - 1)]),
    PageUp: () => beside(rows[Math.max(place - 10, 0)]),
    Home: () => cells[0],
    End: () => cells[cells.length - 1],
  }[event.key];
  if (to) {
    event.preventDefault();
    to()?.focus();
  } else if (event.key === "Enter" && at.matches("td")) {
    location.hash = row.querySelector("a").getAttribute("href");
  }
}

function line(row, columns) {
  const few = row.copies < Math.min(2, row.wanted);
  const name = h("th", { scope: "row" },
    h("div", { class: "repo" },
      h("a", { href: repoLink(row.npub, row.d), tabindex: "-1", "data-column": "-1", title: row.d }, quoted(row.d)),
      row.held && h("span", { class: "flag" }, "held"),
      h("span", { class: "npub", title: row.npub }, shortNpub(row.npub))));
  const cells = columns.map((url, column) => cell(row, url, column));
  return h("tr", { "data-key": row.key }, name,
    h("td", { class: few ? "copies few" : "copies" }, `${row.copies}/${row.wanted}`), cells);
}

function cell(row, url, column) {
  const letter = row.s[column];
  const word = STATUSES[letter]?.word ?? "not wanted here";
  const why = row.why?.[column];
  const said = [`${host(url)}: ${word}`];
  if (why?.reason) said.push(why.reason);
  if (why) said.push(`since ${ago(why.since).replace(" ago", "")}${why.retry_at ? `, next try ${until(why.retry_at)}` : ""}`);
  const element = h("td", { class: "cell", tabindex: "-1", "data-column": column }, sign(letter),
    h("span", { class: "hidden" }, said.join(". ")));
  element.said = said;
  return element;
}

function sums(header) {
  const { totals, servers } = header;
  const used = servers.filter((server) => !server.unused);
  const up = used.filter((server) => server.reachable).length;
  const risk = (header.redundancy[0] ?? 0) + (header.redundancy[1] ?? 0);
  const tile = (name, value, of, bad) =>
    h("div", { class: bad ? "bad" : undefined }, h("dt", {}, name),
      h("dd", {}, value.toLocaleString("en"), of && h("small", {}, ` ${of}`)));
  return h("dl", { class: "totals" },
    tile("Mirrors in sync", totals.in_sync, `of ${totals.mirrors.toLocaleString("en")}`, false),
    tile("Repositories", totals.repos, `of ${count(totals.authors, "author", "authors")}`, false),
    tile("Servers up", up, `of ${used.length}`, up < used.length),
    tile("At risk", risk, "with fewer than two copies", risk > 0));
}

function buckets(header, rows, changed) {
  const sizes = BUCKETS.map((bucket) => Object.entries(header.redundancy)
    .filter(([copies]) => bucket.has(Number(copies))).reduce((sum, [, n]) => sum + n, 0));
  const total = sizes.reduce((sum, n) => sum + n, 0);
  if (!total) return null;
  const troubled = rows.filter(hasProblem).length;
  const strip = h("div", { class: "strip", "aria-hidden": "true" }, sizes.map((size, at) => {
    if (!size) return null;
    const part = h("span", { class: `copies-${at}` });
    part.style.flex = `${size} 1 0`;
    return part;
  }));
  const choice = (value, name, swatch) => {
    const button = h("button", { type: "button", id: `only-${value}`, "aria-pressed": String(view.only === value) }, swatch, name);
    button.addEventListener("click", () => {
      view.only = view.only === value ? null : value;
      changed();
    });
    return h("li", {}, button);
  };
  const items = sizes.map((size, at) =>
    size ? choice(at, `${BUCKETS[at].name}: ${size.toLocaleString("en")}`, h("span", { class: `swatch copies-${at}` })) : null);
  return h("section", { class: "redundancy", "aria-label": "Redundancy" },
    h("h2", {}, "Repositories by verified copies: all but one of the copies may vanish before anything is lost"),
    strip, h("ul", { class: "legend" }, items, troubled > 0 && choice("problems", `with problems: ${troubled.toLocaleString("en")}`)));
}

function key() {
  return h("ul", { class: "keys", "aria-label": "Signs" },
    Object.entries(STATUSES).map(([letter, status]) => h("li", {}, sign(letter), status.word)));
}

// What somebody wants mirrored, and nobody announces.
function notFound(missing) {
  if (!missing.length) return null;
  const lines = missing.map((one) => h("li", {}, quoted(one.d), h("span", { class: "npub", title: one.npub }, shortNpub(one.npub))));
  return h("details", { class: "alone missing", open: true }, h("summary", {}, "Watched, and announced nowhere"), h("ul", { class: "log" }, lines));
}

// What is not mirrored on purpose, and who wants it so.
function leftAlone({ wanted, by, deleted, private: hidden, over_limit: beyond }) {
  const sums = [
    wanted && `${wanted.toLocaleString("en")} because somebody wants it so`, deleted && `${deleted.toLocaleString("en")} deleted`,
    hidden && `${hidden.toLocaleString("en")} private`, beyond && `${beyond.toLocaleString("en")} beyond max_repos_per_author`,
  ].filter(Boolean);
  if (!sums.length) return null;
  const words = `Left alone: ${sums.join(", ")}`;
  if (!by.length) return h("p", { class: "soft alone" }, words);
  const lines = by.map((one) => h("li", {}, quoted(one.d), h("span", { class: "npub", title: one.npub }, shortNpub(one.npub)), one.reason));
  const more = wanted - by.length;
  return h("details", { class: "alone" }, h("summary", {}, words),
    h("ul", { class: "log" }, lines), more > 0 && h("p", { class: "soft" }, `and ${more.toLocaleString("en")} more`));
}

function nothing(header) {
  if (header.phase === "starting" || header.cycle.number === 0) {
    const since = header.running ? `The first look began ${span(now() - header.running.since)} ago.` : "The bot is reading its own lists.";
    return h("p", { class: "empty" }, h("strong", {}, "Just started"), `${since} Repositories appear here when it is over.`);
  }
  const say = header.not_found.length ? "Nobody announces what is watched." : header.totals.authors ? "Those who are watched have announced no repositories." : "Nobody is watched.";
  return h("p", { class: "empty" }, h("strong", {}, "Nothing to mirror yet"), `${say} Send the bot a direct message: `,
    h("code", {}, "watch <npub>"));
}
