"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const NAMES = { a: "anomaly", n: "normal", u: "unsure" };
  const LABELS = { a: "1", n: "0", u: "" };
  const AHEAD = 6; // rows that are drawn above and below those in sight

  const rows = data.rows.map(([row, rank, score, group, id, before, cells]) => ({
    row, rank, score, group, before, cells, id: id === null ? String(row) : id,
  }));
  const compared = data.compare !== null;
  for (const r of rows) {
    r.move = compared ? r.before - r.rank : 0; // places that it rose
    r.isNew = compared && r.rank <= data.top && r.before > data.top;
    r.isGone = compared && r.rank > data.top && r.before <= data.top;
  }

  // --- words -------------------------------------------------------------------------------------

  const readable = (x) => {
    if (x === null) return "no value";
    if (typeof x === "string") return x;
    const size = Math.abs(x);
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return x.toExponential(3);
    if (Number.isInteger(x)) return size < 1e5 ? String(x) : x.toLocaleString("en-US");
    const digits = Math.max(0, Math.min(6, 3 - Math.floor(Math.log10(size))));
    return x.toLocaleString("en-US", { maximumFractionDigits: digits, useGrouping: size >= 1e5 });
  };
  const count = (n) => n.toLocaleString("en-US");
  const share = (thousandths) => `${thousandths / 10} %`;
  const nameOf = (r) => (data.id === null ? `row ${r.row}` : `${data.id} ${r.id}`);

  // What a cell says of its place among the reference rows, and where a dot goes, if anywhere.
  const placeOf = (text, place) => {
    if (place === null) return ["", null];
    if (text) return [place === 0 ? "never seen" : `in ${share(place)} of rows`, null];
    if (place === 1000) return ["above all", 1000];
    if (place === 0) return ["below all", 0];
    return [`above ${share(place)}`, place];
  };

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text; // never as HTML: cells hold anything
    return element;
  };

  // Cells come in fours: column, contribution, value, place; the largest contribution first.
  const reasons = (r, most = Infinity) => {
    const found = [];
    for (let i = 0; i < r.cells.length && found.length < most; i += 4) {
      const [column, contribution, value, place] = r.cells.slice(i, i + 4);
      const [name, typical, text] = data.columns[column];
      found.push({ name, typical, text, contribution, value, place });
    }
    return found;
  };

  // --- marks: kept where the browser lets a page keep something ------------------------------------

  const marks = new Map();
  try {
    const kept = JSON.parse(localStorage.getItem(data.key) || "{}");
    for (const r of rows) if (NAMES[kept[r.row]]) marks.set(r.row, kept[r.row]);
  } catch { /* a browser that keeps nothing for pages from disk */ }
  let changed = false; // since the last download

  const keep = () => {
    try {
      localStorage.setItem(data.key, JSON.stringify(Object.fromEntries(marks)));
    } catch { /* the download remains */ }
  };

  const mark = (r, to) => {
    const now = marks.get(r.row) === to ? undefined : to;
    if (now) marks.set(r.row, now);
    else marks.delete(r.row);
    changed = true;
    keep();
    $("said").textContent = `${nameOf(r)}: ${now ? NAMES[now] : "not marked"}`;
    progress();
  };

  const progress = () => {
    const of = { a: 0, n: 0, u: 0 };
    for (const m of marks.values()) of[m] += 1;
    $("progress").textContent = `${count(marks.size)} of ${count(rows.length)} marked: `
      + `${of.a} anomaly, ${of.n} normal, ${of.u} unsure`;
    $("download").disabled = marks.size === 0;
  };

  const quoted = (cell) => (/[",\r\n]|^\s|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

  const asCsv = () => {
    const header = [data.id === null ? "row" : data.id, "label", "score"];
    const withFile = data.id === null && data.file !== null;
    if (withFile) header.push("file");
    const lines = [header];
    for (const r of rows) {
      const m = marks.get(r.row);
      if (m) lines.push([r.id, LABELS[m], String(r.score), ...(withFile ? [data.file] : [])]);
    }
    return lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
  };

  const download = () => {
    if (!marks.size) return;
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    link.download = "marks.csv";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    changed = false;
  };

  addEventListener("beforeunload", (event) => {
    let kept = false;
    try { kept = localStorage.getItem(data.key) !== null; } catch { /* nothing is kept */ }
    if (changed && !kept) event.preventDefault(); // marks would be lost
  });

  // --- which rows, in which order --------------------------------------------------------------------

  const byMark = { a: 0, n: 1, u: 2 };
  const text = new Intl.Collator("en", { numeric: true }).compare;
  const ORDERS = {
    rank: ["rank", (x, y) => x.rank - y.rank],
    id: [data.id === null ? "row" : data.id,
      data.id === null ? (x, y) => x.row - y.row : (x, y) => text(x.id, y.id)],
    score: ["score", (x, y) => x.score - y.score],
    group: ["group", (x, y) => x.group - y.group],
    why: ["main column", (x, y) => text(reasons(x, 1)[0].name, reasons(y, 1)[0].name)],
    mark: ["mark", (x, y) => (byMark[marks.get(x.row)] ?? 3) - (byMark[marks.get(y.row)] ?? 3)],
  };
  if (compared) ORDERS.moved = ["moved", (x, y) => y.move - x.move];
  const state = { sort: "rank", reverse: false, group: -1, at: 0 };
  let view = rows;

  const haystack = (r) => {
    r.text ??= [r.id, String(r.row), ...reasons(r, 3).map((c) => c.name),
      ...reasons(r).filter((c) => typeof c.value === "string").map((c) => c.value),
    ].join("\n").toLowerCase();
    return r.text;
  };

  const fits = (r) => {
    const m = $("marks").value;
    const move = $("moves").value;
    const wanted = $("filter").value.trim().toLowerCase();
    return (!m || (marks.get(r.row) ?? "none") === m)
      && (state.group < 0 || r.group === state.group)
      && (!move || (move === "new" ? r.isNew : move === "gone" ? r.isGone
        : move === "up" ? r.move > 0 : r.move < 0))
      && (!wanted || haystack(r).includes(wanted));
  };

  const current = () => view[state.at];

  // Choose and sort anew; the row that was current stays so, if it is still there.
  const refresh = (stay = true) => {
    const here = current();
    const [, order] = ORDERS[state.sort];
    const sign = state.reverse ? -1 : 1;
    view = rows.filter(fits).sort((x, y) => sign * order(x, y) || x.rank - y.rank);
    const found = stay && here ? view.indexOf(here) : -1;
    state.at = found >= 0 ? found : Math.min(stay ? 0 : state.at, Math.max(0, view.length - 1));
    $("nothing").hidden = view.length > 0;
    $("sort").value = state.sort;
    $("grid").setAttribute("aria-rowcount", view.length + 1);
    $("body").style.height = `${view.length * height()}px`;
    drawHead();
    show();
  };

  // --- the list: only rows in sight are drawn ----------------------------------------------------------

  const height = () => parseFloat(getComputedStyle(document.body).getPropertyValue("--row"));

  const buttons = (r, long) => {
    const box = make("div", long ? "choice" : "marks");
    for (const [key, name] of Object.entries(NAMES)) {
      const button = make("button", key, long ? `${name} ` : key.toUpperCase());
      if (long) button.append(make("kbd", "", key));
      button.type = "button";
      button.title = `${name} (${key})`;
      button.setAttribute("aria-label", `${name}: ${nameOf(r)}`);
      button.setAttribute("aria-pressed", marks.get(r.row) === key);
      if (!long) button.tabIndex = -1; // by keys, or by the buttons beside the list
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        mark(r, key);
        if (!long) select(view.indexOf(r), false);
        afterMark(false);
        if (long) $("detail").querySelector(`button.${key}`)?.focus();
      });
      box.append(button);
    }
    return box;
  };

  const moveText = (r) => (r.isNew ? "new" : r.isGone ? "gone"
    : r.move > 0 ? `▲ ${count(r.move)}` : r.move < 0 ? `▼ ${count(-r.move)}` : "=");

  const drawRow = (r, index) => {
    const line = make("div", "row");
    line.id = `row-${index}`;
    line.style.top = `${index * height()}px`;
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", index + 2);
    line.setAttribute("aria-selected", index === state.at);
    const cells = [make("span", "number", count(r.rank))];
    if (compared) {
      const moved = make("span", `moved ${r.move > 0 ? "up" : r.move < 0 ? "down" : ""}`, moveText(r));
      moved.title = `rank ${count(r.before)} before`;
      cells.push(moved);
    }
    const id = make("span", "clip", r.id);
    id.title = r.id;
    const group = make("span", "group");
    if (data.groups.length) {
      const dot = make("span", "dot", String(r.group + 1));
      dot.title = data.groups[r.group][0];
      group.append(dot);
    }
    const why = make("span", "why clip");
    for (const [i, c] of reasons(r, 3).entries()) {
      if (i && c.contribution <= 0) break;
      why.append(i ? " · " : "", make("b", "", c.name), ` ${readable(c.value)}`);
    }
    why.title = why.textContent;
    cells.push(id, make("span", "number", readable(r.score)), group, why, buttons(r, false));
    for (const cell of cells) cell.setAttribute("role", "gridcell");
    line.append(...cells);
    line.addEventListener("click", () => select(index, false));
    return line;
  };

  const drawHead = () => {
    const names = ["rank", ...(compared ? ["moved"] : []), "id", "score", "group", "why", "mark"];
    $("head").replaceChildren(...names.map((key) => {
      const cell = make("span", ["rank", "score"].includes(key) ? "number" : "");
      cell.setAttribute("role", "columnheader");
      const here = state.sort === key;
      if (here) cell.setAttribute("aria-sort", state.reverse ? "descending" : "ascending");
      const label = key === "group" ? (data.groups.length ? "grp" : "") : ORDERS[key][0];
      const button = make("button", "", label + (here ? (state.reverse ? " ▾" : " ▴") : ""));
      button.type = "button";
      button.title = `sort by ${ORDERS[key][0]}`;
      button.addEventListener("click", () => {
        const focused = document.activeElement === button;
        sortBy(key);
        if (focused) $("head").children[names.indexOf(key)].firstChild.focus();
      });
      cell.append(button);
      return cell;
    }));
  };

  const draw = () => {
    const grid = $("grid");
    const tall = height();
    const first = Math.max(0, Math.floor(grid.scrollTop / tall) - AHEAD);
    const last = Math.min(view.length, Math.ceil((grid.scrollTop + grid.clientHeight) / tall) + AHEAD);
    const lines = [];
    for (let i = first; i < last; i += 1) lines.push(drawRow(view[i], i));
    $("body").replaceChildren(...lines);
    if ($(`row-${state.at}`)) grid.setAttribute("aria-activedescendant", `row-${state.at}`);
    else grid.removeAttribute("aria-activedescendant");
  };

  const intoSight = () => {
    const grid = $("grid");
    const tall = height();
    const head = $("head").offsetHeight;
    const top = state.at * tall;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + tall + head > grid.scrollTop + grid.clientHeight) {
      grid.scrollTop = top + tall + head - grid.clientHeight;
    }
  };

  // --- the row beside the list, and its place among the scores --------------------------------------

  const drawDetail = () => {
    const r = current();
    const detail = $("detail");
    if (!r) return detail.replaceChildren();
    const found = reasons(r);
    const largest = Math.max(...found.map((c) => Math.abs(c.contribution))) || 1;
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const [name, className] of [["column", ""], ["value", "number"], ["typical", "number"],
      ["among all rows", ""], ["adds to score", ""]]) {
      const cell = make("th", className, name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const c of found) {
      const line = body.insertRow();
      const name = make("th", "", c.name);
      name.scope = "row";
      const place = make("td");
      const box = make("div", "place");
      const [said, at] = placeOf(c.text, c.place);
      if (at !== null) {
        const track = make("span", "track");
        const dot = make("i");
        dot.style.left = `${at / 10}%`;
        track.append(dot);
        box.append(track);
      }
      box.append(said);
      place.append(box);
      const part = make("td");
      const bar = make("div", "share");
      const fill = make("i", c.contribution < 0 ? "less" : "");
      fill.style.width = `${(100 * Math.abs(c.contribution)) / largest}%`;
      bar.append(fill, make("span", "", readable(c.contribution)));
      part.append(bar);
      const kind = c.text ? "number" : "number plain";
      line.append(name, make("td", kind, readable(c.value)),
        make("td", kind, c.typical === null ? "–" : readable(c.typical)), place, part);
    }
    const more = [`rank ${count(r.rank)}`, `score ${readable(r.score)}`,
      r.score > data.threshold ? "above the threshold" : "below the threshold"];
    if (data.id !== null) more.push(`row ${count(r.row)}`);
    if (data.groups.length) more.push(`group ${r.group + 1}: ${data.groups[r.group][0]}`);
    if (compared) more.push(`rank ${count(r.before)} before`);
    const all = data.columns.length;
    const parts = [make("h2", "", nameOf(r)), make("p", "quiet", more.join(" · ")), buttons(r, true), table];
    if (found.length < all) {
      parts.push(make("p", "quiet", `The ${found.length} of ${all} columns that add most.`));
    }
    detail.replaceChildren(...parts);
    return undefined;
  };

  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const { edges, counts, log } = data.bins;
  const scaled = (x) => (log ? Math.log(x) : x);
  const [low, high] = [scaled(edges[0]), scaled(edges.at(-1))];
  const along = (x) => {
    if (log && x <= 0) return 0;
    return Math.max(0, Math.min(1, (scaled(x) - low) / (high - low || 1)));
  };
  const upright = (className, x) => shape("line", { class: className, x1: x, x2: x, y1: 0, y2: 100 });

  const drawBars = () => {
    const bars = $("bars");
    bars.setAttribute("viewBox", "0 0 1000 100");
    const most = Math.max(...counts);
    counts.forEach((n, i) => {
      const left = 1000 * along(edges[i]);
      const wide = Math.max(1, 1000 * along(edges[i + 1]) - left - 1);
      const tall = n ? Math.max(3, 100 * Math.sqrt(n / most)) : 0;
      const above = edges[i] >= data.threshold ? "above" : "";
      const bar = shape("rect", { class: above, x: left, width: wide, y: 100 - tall, height: tall });
      const title = shape("title", {});
      title.textContent = `${count(n)} rows: ${readable(edges[i])} to ${readable(edges[i + 1])}`;
      bar.append(title);
      bars.append(bar);
    });
    const at = along(data.threshold);
    bars.append(upright("threshold", 1000 * at));
    const said = `Scores of ${count(data.n)} rows`;
    bars.setAttribute("aria-label", `${said}, ${count(data.flagged)} above the threshold`);
    $("caption").textContent = `${said}${log ? ", logarithmic" : ""}; heights are square roots of counts. `
      + "Blue: the current row.";
    // The ends, where the threshold leaves room for their numbers.
    for (const [x, side, room] of [[edges[0], "left", at], [edges.at(-1), "right", 1 - at]]) {
      if (room < 0.25) continue;
      const label = make("span", "", readable(x));
      label.style[side] = 0;
      $("axis").append(label);
    }
    const label = make("span", "", `threshold ${readable(data.threshold)}`);
    label.style.left = `${100 * at}%`;
    label.style.transform = `translateX(-${100 * at}%)`;
    $("axis").append(label);
  };

  const drawCursor = () => {
    $("bars").querySelector(".cursor")?.remove();
    if (current()) $("bars").append(upright("cursor", 1000 * along(current().score)));
  };

  const show = () => {
    intoSight();
    draw();
    drawDetail();
    drawCursor();
  };

  // --- what keys and clicks do ---------------------------------------------------------------------------

  const select = (index, focus = true) => {
    if (!view.length) return;
    state.at = Math.max(0, Math.min(view.length - 1, index));
    $("detail").scrollTop = 0;
    show();
    if (focus) $("grid").focus({ preventScroll: true });
  };

  const afterMark = (advance) => {
    // The row may have left the list: then the next one has come to its place.
    if ($("marks").value) refresh(false);
    else if (advance && state.at + 1 < view.length) select(state.at + 1);
    else show();
  };

  const sortBy = (key) => {
    // The largest score first, when one asks for scores.
    state.reverse = state.sort === key ? !state.reverse : key === "score";
    state.sort = key;
    state.at = 0; // to see what comes first
    refresh(false);
  };

  const chooseGroup = (group) => {
    state.group = group;
    for (const [i, button] of [...$("groups").children].entries()) {
      button.setAttribute("aria-pressed", i - 1 === group);
    }
    refresh();
  };

  const drawGroups = () => {
    if (!data.groups.length) return;
    const all = ["all groups", rows.length];
    [all, ...data.groups].forEach(([name, n], i) => {
      const button = make("button", "", `${i ? `${i}: ` : ""}${name} (${count(n)})`);
      button.type = "button";
      button.setAttribute("aria-pressed", i === 0);
      button.addEventListener("click", () => chooseGroup(i - 1));
      $("groups").append(button);
    });
  };

  const page = () => Math.max(1, Math.floor($("grid").clientHeight / height()) - 1);
  const nextSort = () => {
    const keys = Object.keys(ORDERS);
    sortBy(keys[(keys.indexOf(state.sort) + 1) % keys.length]);
  };
  const markCurrent = (key) => {
    if (!current()) return;
    mark(current(), key);
    afterMark(true);
  };
  const unmark = () => {
    if (!current() || !marks.has(current().row)) return;
    mark(current(), marks.get(current().row));
    afterMark(false);
  };
  const KEYS = {
    j: () => select(state.at + 1), ArrowDown: () => select(state.at + 1),
    k: () => select(state.at - 1), ArrowUp: () => select(state.at - 1),
    PageDown: () => select(state.at + page()), PageUp: () => select(state.at - page()),
    Home: () => select(0), End: () => select(view.length - 1),
    a: () => markCurrent("a"), n: () => markCurrent("n"), u: () => markCurrent("u"),
    x: unmark, Backspace: unmark,
    "/": () => { $("filter").focus(); $("filter").select(); },
    s: nextSort, r: () => sortBy(state.sort),
    g: () => {
      if (data.groups.length) chooseGroup(state.group + 1 < data.groups.length ? state.group + 1 : -1);
    },
    d: download,
    "?": () => { $("help").open = !$("help").open; },
    Escape: () => { $("help").open = false; },
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("input, select")) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target === $("filter"))) {
        event.preventDefault();
        $("grid").focus({ preventScroll: true });
      }
      return;
    }
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  for (const [key, [name]] of Object.entries(ORDERS)) {
    const option = make("option", "", name);
    option.value = key;
    $("sort").append(option);
  }
  $("sort").addEventListener("change", () => sortBy($("sort").value));
  $("filter").addEventListener("input", () => refresh());
  $("marks").addEventListener("change", () => refresh());
  $("moves").addEventListener("change", () => refresh());
  $("download").addEventListener("click", download);
  let waiting = false; // one drawing for each picture of the screen
  $("grid").addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  addEventListener("resize", () => refresh());

  $("summary").textContent = data.summary;
  if (compared) {
    document.body.classList.add("with-moves");
    $("moves-label").hidden = false;
  }
  drawGroups();
  drawBars();
  progress();
  refresh();
  $("grid").focus({ preventScroll: true });
})();
