/* The live page: GET /live/feed as server-sent events, one JSON object each, in three columns.
   Everything shown comes from visitors in the end, so it is set as text and never as HTML. */
(() => {
  "use strict";
  const ROWS = 80; // in a column
  const KINDS = ["event", "move", "send", "arm", "message", "hold", "disarm", "progress", "coupon", "reject"];
  const COLUMN = {
    event: "events",
    reject: "events",
    move: "moves",
    send: "decisions",
    arm: "decisions",
    message: "decisions",
    hold: "decisions",
    disarm: "decisions",
    progress: "moves",
    coupon: "moves",
  };
  const WORDS = {
    send: "show",
    arm: "arm",
    message: "write",
    hold: "hold",
    disarm: "disarm",
    progress: "workflow",
    coupon: "coupon",
    reject: "reject",
  };
  const $ = (id) => document.getElementById(id);
  const text = (value, most = 200) =>
    (value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)).slice(0, most);
  const plain = (value) => text(value).replace(/_/g, " ");

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value) element.setAttribute(name, value);
    element.append(...children.flat().filter((one) => one !== "" && one != null && one !== false));
    return element;
  }

  // --- counters ---
  const counts = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  const numbers = {};
  for (const kind of KINDS) {
    numbers[kind] = make("b", {}, "0");
    $("counters").append(
      make(
        "li",
        { "data-kind": kind },
        numbers[kind],
        " ",
        {
          event: "events",
          move: "moves",
          send: "shown now",
          arm: "armed",
          message: "written",
          hold: "held",
          disarm: "disarmed",
          progress: "workflow steps",
          coupon: "coupons",
          reject: "rejected",
        }[kind],
      ),
    );
  }
  const skipped = make("li", { hidden: "hidden" });
  $("counters").append(skipped);
  let missed = 0;

  // --- one line ---
  let only = ""; // the person looked at
  function person(who) {
    if (!who) return "";
    const button = make("button", { class: "who", title: "Only this person" }, text(who, 12));
    let hue = 0;
    for (const letter of text(who, 12)) hue = (hue * 31 + letter.charCodeAt(0)) % 360;
    button.style.setProperty("--hue", hue);
    button.addEventListener("click", () => focus(only === who ? "" : who));
    return button;
  }

  const time = (at) => {
    const when = new Date(Number(at));
    return isNaN(when) ? "" : when.toTimeString().slice(0, 8);
  };

  /* Why: what triggered it, what held, what failed, and what was live when it was decided. */
  function why(because) {
    if (!because || typeof because !== "object") return because ? make("p", { class: "why" }, text(because, 400)) : "";
    const some = (list) => (Array.isArray(list) ? list.slice(0, 12) : []);
    const live = [
      ["model", because.model],
      ["playbook", because.playbook],
      ["variant", because.variant],
    ]
      .filter(([, value]) => value)
      .map(([name, value]) => `${name} ${text(value, 12)}`);
    return make(
      "div",
      { class: "why" },
      because.reason &&
        make("p", { class: "reason" }, plain(because.reason), because.detail ? `: ${text(because.detail)}` : ""),
      because.trigger && make("p", {}, `on ${plain(because.trigger)}`),
      some(because.held).map((one) => make("p", { class: "held" }, text(one))),
      some(because.failed).map((one) => make("p", { class: "failed" }, text(one))),
      !because.reason && because.detail && make("p", {}, text(because.detail)),
      live.length > 0 && make("p", { class: "note" }, live.join(", ")),
    );
  }

  function line(shown) {
    const { kind } = shown,
      where = [shown.country, shown.device, shown.bot && "bot", shown.known && "signed in"]
        .filter(Boolean)
        .map((one) => text(one, 20))
        .join(", ");
    const row = make(
      "li",
      { "data-kind": kind, "data-who": text(shown.who, 12) },
      make(
        "div",
        { class: "head" },
        make("time", {}, time(shown.at)),
        person(shown.who),
        Object.hasOwn(WORDS, kind) && make("b", { class: "kind" }, WORDS[kind]),
        kind === "move" && make("b", { class: "kind" }, shown.entered === false ? "leaves" : "enters"),
        make("span", { class: "what" }, kind === "event" ? text(shown.what) : plain(shown.what)),
        shown.format && make("span", { class: "note" }, text(shown.format, 12)),
      ),
      (shown.detail || shown.title) && make("p", { class: "detail" }, text(shown.detail || shown.title)),
      where && make("p", { class: "note" }, where),
      why(shown.because),
    );
    if (kind === "move" && shown.entered === false) row.dataset.left = "";
    row.hidden = only && row.dataset.who !== only;
    return row;
  }

  function focus(who) {
    only = text(who, 12);
    $("everybody").hidden = !only;
    $("everybody").textContent = `Show everybody (now: ${only})`;
    document.querySelectorAll("main li").forEach((row) => {
      row.hidden = only && row.dataset.who !== only;
    });
  }
  $("everybody").addEventListener("click", () => focus(""));

  // --- the model ---
  const digits = (value, most) => (typeof value === "number" && isFinite(value) ? value.toFixed(most) : "-");
  function model(shown) {
    const quality = { ...shown, ...shown.quality },
      { log_loss: loss = 0, base_log_loss: base = 0 } = quality;
    $("version").textContent =
      `${plain(shown.what || shown.model || "propensity")} ${shown.version == null ? "" : "v" + text(shown.version, 12)}`.trim();
    $("age").textContent =
      `published ${time(shown.at)}` + (quality.drifts ? `, ${text(quality.drifts)} drifts seen` : "");
    $("examples").textContent = text(quality.examples == null ? 0 : quality.examples, 12);
    $("positives").textContent = quality.positives == null ? "" : `${text(quality.positives, 12)} of them bought`;
    $("loss").textContent = digits(loss, 4);
    $("base").textContent =
      `the base rate alone: ${digits(base, 4)}` +
      (base > 0 ? `, ${digits(Math.abs(100 * (1 - loss / base)), 1)} % ${loss < base ? "better" : "worse"}` : "");
    $("model").dataset.better = loss < base;
    $("auc").textContent = digits(quality.roc_auc, 3);
  }

  // --- the playbook folder, while something is wrong with it ---
  const moment = (at) => {
    const when = new Date(Number(at));
    const today = when.toDateString() === new Date().toDateString();
    return today ? time(at) : `${text(when.toLocaleDateString())} ${time(at).slice(0, 5)}`;
  };
  function playbook(shown) {
    const problems = Array.isArray(shown.problems) ? shown.problems.slice(0, 20) : [],
      count = Number(shown.count) || problems.length;
    $("playbook").hidden = problems.length === 0;
    if (!problems.length) return;
    const live = !shown.live
      ? "nothing is decided, for no playbook was live before"
      : `${Number(shown.live_since) ? `the playbook of ${moment(shown.live_since)}` : "an older playbook"} stays live`;
    $("wrong").textContent =
      `${text(shown.folder)}/ has ${count === 1 ? "1 mistake" : `${count} mistakes`}, since ${moment(shown.since)}: ${live}`;
    const more = count - problems.length;
    $("problems").replaceChildren(
      ...problems.map((one) => make("li", {}, text(one, 400))),
      ...(more > 0 ? [make("li", {}, `and ${more} more: attimo check ${text(shown.folder)}`)] : []),
    );
  }

  // --- records in the wrong partition, while there are too many ---
  function misrouted(shown) {
    $("misrouted").hidden = !shown.problem;
    $("astray").textContent = text(shown.problem, 400);
  }

  // --- the feed: what arrives within a frame is drawn at once ---
  let paused = false,
    waiting = [],
    drawing = 0;
  const known = new Set(); // decisions may be repeated after a crash, with the same id
  function take(shown) {
    const { kind, id } = shown;
    if (kind === "watching") return status("live", "Watching");
    if (kind === "error") return status("away", `The log does not answer: ${text(shown.because)}`);
    if (kind === "model") return model(shown);
    if (kind === "playbook") return playbook(shown);
    if (kind === "misrouted") return misrouted(shown);
    if (kind === "skipped") {
      missed += Number(shown.n) || 0;
      skipped.hidden = false;
      skipped.textContent = `${missed} too quick to show`;
      return undefined;
    }
    if (!KINDS.includes(kind) || (id && known.has(id))) return undefined;
    if (id && known.add(id).size > 2000) known.delete(known.values().next().value);
    numbers[kind].textContent = String(++counts[kind]);
    if (!paused) {
      waiting.push(shown);
      drawing = drawing || requestAnimationFrame(draw);
    }
    return undefined;
  }
  function draw() {
    drawing = 0;
    for (const shown of waiting.slice(-3 * ROWS)) {
      const column = $(COLUMN[shown.kind]);
      column.prepend(line(shown));
      while (column.childElementCount > ROWS) column.lastElementChild.remove();
    }
    waiting = [];
  }
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Go on" : "Pause";
  });

  function status(state, words) {
    $("status").dataset.state = state;
    $("status").textContent = words;
  }
  let pause = 500;
  function connect() {
    const feed = new EventSource("/live/feed");
    feed.onopen = () => {
      pause = 500;
      playbook({}); // told anew while something is wrong
      misrouted({});
      status("live", "Watching");
    };
    feed.onmessage = ({ data }) => {
      let shown = null;
      try {
        shown = JSON.parse(data);
      } catch {
        /* a broken line is no line */
      }
      if (shown && typeof shown === "object") take(shown);
    };
    feed.onerror = () => {
      feed.close();
      status("away", "Not connected; trying again");
      setTimeout(connect, pause);
      pause = Math.min(10000, pause * 2);
    };
  }
  connect();
})();
