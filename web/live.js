/* The live page: shows the entries of GET /live/feed (server-sent events with one JSON object each) in three columns.
   All values may come from visitors, so they are set as text, never as HTML. */
(() => {
  "use strict";
  const MAX_ROWS = 80; // per column
  const KINDS = [
    "event", "segment_change", "send", "preload", "message", "suppress", "cancel", "workflow_progress", "coupon_event",
    "dead_letter",
  ];
  const COLUMN_OF_KIND = {
    event: "events",
    dead_letter: "events",
    segment_change: "segment-changes",
    send: "decisions",
    preload: "decisions",
    message: "decisions",
    suppress: "decisions",
    cancel: "decisions",
    workflow_progress: "segment-changes",
    coupon_event: "segment-changes",
  };
  const LABELS = {
    send: "send",
    preload: "preload",
    message: "message",
    suppress: "suppress",
    cancel: "cancel",
    workflow_progress: "workflow",
    coupon_event: "coupon",
    dead_letter: "dead letter",
  };
  const $ = (id) => document.getElementById(id);
  const text = (value, most = 200) =>
    (value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)).slice(0, most);
  const humanize = (value) => text(value).replace(/_/g, " ");

  function element(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value) node.setAttribute(name, value);
    node.append(...children.flat().filter((child) => child !== "" && child != null && child !== false));
    return node;
  }

  // --- counters ---
  const counts = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  const counterElements = {};
  for (const kind of KINDS) {
    counterElements[kind] = element("b", {}, "0");
    $("counters").append(
      element(
        "li",
        { "data-kind": kind },
        counterElements[kind],
        " ",
        {
          event: "events",
          segment_change: "segment changes",
          send: "sent",
          preload: "preloaded",
          message: "messages",
          suppress: "suppressed",
          cancel: "cancelled",
          workflow_progress: "workflow steps",
          coupon_event: "coupons",
          dead_letter: "dead letters",
        }[kind],
      ),
    );
  }
  const skippedElement = element("li", { hidden: "hidden" });
  $("counters").append(skippedElement);
  let skippedCount = 0;

  // --- one entry ---
  let selectedPerson = ""; // the person that the page is filtered by
  function personButton(person) {
    if (!person) return "";
    const button = element("button", { class: "person", title: "Show only this person" }, text(person, 12));
    let hue = 0;
    for (const char of text(person, 12)) hue = (hue * 31 + char.charCodeAt(0)) % 360;
    button.style.setProperty("--hue", hue);
    button.addEventListener("click", () => filterByPerson(selectedPerson === person ? "" : person));
    return button;
  }

  const time = (at) => {
    const when = new Date(Number(at));
    return isNaN(when) ? "" : when.toTimeString().slice(0, 8);
  };

  /* The explanation of a decision: trigger, passed and failed conditions, model, playbook and variant. */
  function explanation(because) {
    if (!because || typeof because !== "object") return because ? element("p", { class: "explanation" }, text(because, 400)) : "";
    const firstTwelve = (list) => (Array.isArray(list) ? list.slice(0, 12) : []);
    const live = [
      ["model", because.model],
      ["playbook", because.playbook],
      ["variant", because.variant],
    ]
      .filter(([, value]) => value)
      .map(([name, value]) => `${name} ${text(value, 12)}`);
    return element(
      "div",
      { class: "explanation" },
      because.reason &&
        element("p", { class: "reason" }, humanize(because.reason), because.detail ? `: ${text(because.detail)}` : ""),
      because.trigger && element("p", {}, `on ${humanize(because.trigger)}`),
      firstTwelve(because.passed).map((condition) => element("p", { class: "passed" }, text(condition))),
      firstTwelve(because.failed).map((condition) => element("p", { class: "failed" }, text(condition))),
      !because.reason && because.detail && element("p", {}, text(because.detail)),
      live.length > 0 && element("p", { class: "note" }, live.join(", ")),
    );
  }

  function row(entry) {
    const { kind } = entry,
      source = [entry.country, entry.device, entry.bot && "bot", entry.signed_in && "signed in"]
        .filter(Boolean)
        .map((part) => text(part, 20))
        .join(", ");
    const item = element(
      "li",
      { "data-kind": kind, "data-person": text(entry.person, 12) },
      element(
        "div",
        { class: "head" },
        element("time", {}, time(entry.at)),
        personButton(entry.person),
        Object.hasOwn(LABELS, kind) && element("b", { class: "kind" }, LABELS[kind]),
        kind === "segment_change" && element("b", { class: "kind" }, entry.entered === false ? "exited" : "entered"),
        element("span", { class: "subject" }, kind === "event" ? text(entry.subject) : humanize(entry.subject)),
        entry.format && element("span", { class: "note" }, text(entry.format, 12)),
      ),
      (entry.detail || entry.title) && element("p", { class: "detail" }, text(entry.detail || entry.title)),
      source && element("p", { class: "note" }, source),
      explanation(kind === "dead_letter" ? entry.error : entry.because),
    );
    if (kind === "segment_change" && entry.entered === false) item.dataset.exited = "";
    item.hidden = selectedPerson && item.dataset.person !== selectedPerson;
    return item;
  }

  function filterByPerson(person) {
    selectedPerson = text(person, 12);
    $("show-all").hidden = !selectedPerson;
    $("show-all").textContent = `Show all people (filter: ${selectedPerson})`;
    document.querySelectorAll("main li").forEach((item) => {
      item.hidden = selectedPerson && item.dataset.person !== selectedPerson;
    });
  }
  $("show-all").addEventListener("click", () => filterByPerson(""));

  // --- the model ---
  const digits = (value, most) => (typeof value === "number" && isFinite(value) ? value.toFixed(most) : "-");
  function showModel(entry) {
    const quality = { ...entry, ...entry.quality },
      { log_loss: loss = 0, base_log_loss: base = 0 } = quality;
    $("version").textContent =
      `${humanize(entry.model || "propensity")} ${entry.version == null ? "" : "v" + text(entry.version, 12)}`.trim();
    $("published").textContent =
      `published ${time(entry.at)}` + (quality.drifts ? `, drifts detected: ${text(quality.drifts)}` : "");
    $("examples").textContent = text(quality.examples == null ? 0 : quality.examples, 12);
    $("positives").textContent = quality.positives == null ? "" : `${text(quality.positives, 12)} with an order`;
    $("log-loss").textContent = digits(loss, 4);
    $("base-log-loss").textContent =
      `base rate: ${digits(base, 4)}` +
      (base > 0 ? `, ${digits(Math.abs(100 * (1 - loss / base)), 1)} % ${loss < base ? "better" : "worse"}` : "");
    $("model").dataset.better = loss < base;
    $("auc").textContent = digits(quality.roc_auc, 3);
  }

  // --- errors of the playbook ---
  const formatTime = (at) => {
    const when = new Date(Number(at));
    const today = when.toDateString() === new Date().toDateString();
    return today ? time(at) : `${text(when.toLocaleDateString())} ${time(at).slice(0, 5)}`;
  };
  function showPlaybookStatus(entry) {
    const errors = Array.isArray(entry.errors) ? entry.errors.slice(0, 20) : [],
      count = Number(entry.count) || errors.length;
    $("playbook").hidden = errors.length === 0;
    if (!errors.length) return;
    const live = !entry.live
      ? "no playbook is live, so no decisions are made"
      : `${Number(entry.live_since) ? `the playbook of ${formatTime(entry.live_since)}` : "an older playbook"} stays live`;
    $("playbook-summary").textContent =
      `${text(entry.folder)}/ has ${count === 1 ? "1 error" : `${count} errors`} since ${formatTime(entry.since)}; ${live}`;
    const more = count - errors.length;
    $("playbook-errors").replaceChildren(
      ...errors.map((error) => element("li", {}, text(error, 400))),
      ...(more > 0 ? [element("li", {}, `and ${more} more; run attimo check ${text(entry.folder)}`)] : []),
    );
  }

  // --- warning about misrouted records ---
  function showMisrouted(entry) {
    $("misrouted").hidden = !entry.warning;
    $("misrouted-warning").textContent = text(entry.warning, 400);
  }

  // --- the feed: entries that arrive within one frame are drawn together ---
  let paused = false,
    pendingEntries = [],
    frameRequest = 0;
  const seenIds = new Set(); // after a crash decisions may be repeated with the same id
  function receive(entry) {
    const { kind, id } = entry;
    if (kind === "connected") return setStatus("connected", "Connected");
    if (kind === "error") return setStatus("disconnected", `Log unavailable: ${text(entry.error)}`);
    if (kind === "model") return showModel(entry);
    if (kind === "playbook") return showPlaybookStatus(entry);
    if (kind === "misrouted") return showMisrouted(entry);
    if (kind === "skipped") {
      skippedCount += Number(entry.count) || 0;
      skippedElement.hidden = false;
      skippedElement.textContent = `${skippedCount} not shown (rate limit)`;
      return undefined;
    }
    if (!KINDS.includes(kind) || (id && seenIds.has(id))) return undefined;
    if (id && seenIds.add(id).size > 2000) seenIds.delete(seenIds.values().next().value);
    counterElements[kind].textContent = String(++counts[kind]);
    if (!paused) {
      pendingEntries.push(entry);
      frameRequest = frameRequest || requestAnimationFrame(drawPending);
    }
    return undefined;
  }
  function drawPending() {
    frameRequest = 0;
    for (const entry of pendingEntries.slice(-3 * MAX_ROWS)) {
      const column = $(COLUMN_OF_KIND[entry.kind]);
      column.prepend(row(entry));
      while (column.childElementCount > MAX_ROWS) column.lastElementChild.remove();
    }
    pendingEntries = [];
  }
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Resume" : "Pause";
  });

  function setStatus(state, message) {
    $("status").dataset.state = state;
    $("status").textContent = message;
  }
  let retryDelay = 500;
  function connect() {
    const feed = new EventSource("/live/feed");
    feed.onopen = () => {
      retryDelay = 500;
      showPlaybookStatus({}); // current alerts are sent again
      showMisrouted({});
      setStatus("connected", "Connected");
    };
    feed.onmessage = ({ data }) => {
      let entry = null;
      try {
        entry = JSON.parse(data);
      } catch {
        /* ignore invalid entries */
      }
      if (entry && typeof entry === "object") receive(entry);
    };
    feed.onerror = () => {
      feed.close();
      setStatus("disconnected", "Not connected; retrying");
      setTimeout(connect, retryDelay);
      retryDelay = Math.min(10000, retryDelay * 2);
    };
  }
  connect();
})();
