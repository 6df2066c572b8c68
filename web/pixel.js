/* attimo pixel: what a visitor does. How and why: docs/pixel.md */
(() => {
  "use strict";
  const early = window.attimo;
  if (early && early.version) return;
  const script = document.currentScript || document.querySelector("script[data-write-key]");
  const config = { host: "", exitDwell: 3000, exitCooldown: 30000, ...(script && script.dataset) };
  const MAX_CALL = 32000, MAX_BODY = 48000, MAX_BATCH = 50, MAX_QUEUE = 200;
  const MAX_AGE = 47 * 3600e3; // the server knows a messageId for 48 hours

  const attempt = (fn, otherwise) => { try { return fn(); } catch { return otherwise; } };
  const read = (key) => attempt(() => localStorage.getItem("attimo." + key), null);
  const write = (key, value) => attempt(() => { localStorage.setItem("attimo." + key, value); return true; });
  const erase = (key) => attempt(() => localStorage.removeItem("attimo." + key));
  const keys = (start) => attempt(() => Object.keys(localStorage), [])
    .filter((key) => key.startsWith("attimo." + start)).map((key) => key.slice(7));
  const parse = (text) => attempt(() => JSON.parse(text), null);
  const guard = (fn) => (...args) => { try { return fn(...args); } catch (error) { console.warn("attimo:", error); } };
  const listen = (target, event, fn) => target.addEventListener(event, guard(fn), { capture: event === "click", passive: true });
  const recent = (time, ms) => Math.abs(Date.now() - time) < ms;
  const uuid = () => "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"
    .replace(/x/g, () => (crypto.getRandomValues(new Uint8Array(1))[0] & 15).toString(16));

  const listeners = {};
  const on = (name, fn) => { (listeners[name] = listeners[name] || []).push(guard(fn)); };
  const emit = (name, detail) => (listeners[name] || []).forEach((fn) => fn(detail));

  let chosen = parse(read("consent")); // null: not yet
  let waiting = [];

  function allowed() {
    const open = config.consent !== "required", said = { analytics: open, marketing: open, ...chosen };
    const gpc = navigator.globalPrivacyControl === true;
    const analytics = said.analytics === true && !(gpc && config.gpcAnalytics === "false");
    return { analytics, marketing: analytics && said.marketing === true && !gpc };
  }

  function consent(choice) {
    const was = allowed();
    chosen = { ...chosen, ...choice };
    write("consent", JSON.stringify(chosen));
    settle(was, true);
  }

  function settle(was, tell) {
    const now = allowed(), code = JSON.stringify(now);
    const update = () => message("track", { event: "Consent Updated", properties: now, anonymousId: currentId() });
    if (now.analytics) {
      const told = read("told") || (config.consent === "required" ? "" : '{"analytics":true,"marketing":true}');
      if (tell && told !== code) enqueue(update());
      write("told", code);
      if (user) write("user", JSON.stringify(user));
      waiting.forEach(enqueue);
    } else if (was.analytics) { // withdrawn: only the choice stays
      const last = tell && update();
      outbox.clear();
      keys("").forEach((key) => key !== "consent" && erase(key));
      setCookie("", 0);
      id = user = answered = null;
      if (last) enqueue(last);
    }
    if (chosen) waiting = [];
    emit("consent", now);
  }

  let id = null, user = parse(read("user"));
  const valid = (text) => (/^[\w.-]{8,64}$/.test(text || "") ? text : null);
  const setCookie = (value, days) => {
    document.cookie = `attimo_id=${value};path=/;samesite=lax;max-age=${days * 86400}`
      + (config.cookieDomain ? ";domain=" + config.cookieDomain : "") + (location.protocol === "https:" ? ";secure" : "");
  };

  // Cookie and localStorage heal each other; of two, the cookie is right.
  function currentId(fresh) {
    const old = id, kept = valid(read("id"));
    const cookie = valid((/(?:^|; )attimo_id=([^;]*)/.exec(document.cookie) || [])[1]);
    id = fresh || cookie || kept || id || uuid();
    if (cookie !== id) setCookie(id, 400);
    if (kept !== id) write("id", id);
    if (old && old !== id) emit("identity", id);
    return id;
  }
  const anonymousId = () => (allowed().analytics ? currentId() : null);

  // The server bound this id to another browser. Once a day, as some browsers refuse its cookie.
  function rebind() {
    if (recent(read("rebound"), 86400e3)) return false;
    write("rebound", Date.now());
    currentId(uuid());
    page();
    return true;
  }

  let referrer = document.referrer;
  function message(type, fields) {
    const { pathname, search, href } = location, campaign = {}, agent = navigator.userAgentData;
    const cut = (text) => text.slice(0, 2000);
    new URLSearchParams(search).forEach((value, key) => {
      if (key.startsWith("utm_")) campaign[key === "utm_campaign" ? "name" : key.slice(4)] = value.slice(0, 200);
    });
    const page = {
      url: cut(href.split("#")[0]), path: cut(pathname), search: cut(search),
      title: cut(document.title), referrer: cut(referrer),
    };
    if (type === "page") fields.properties = { ...page, ...fields.properties }; // so the spec has it
    return {
      type, messageId: "at-" + uuid(), timestamp: new Date().toISOString(), userId: user && user.id,
      context: {
        page, campaign, locale: navigator.language, timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
        userAgentData: agent && { mobile: agent.mobile }, library: { name: "attimo.js", version: api.version },
        user_hash: (user && user.hash) || undefined, attimo: config.country && { country: config.country },
      },
      ...fields,
    };
  }

  const said = new Set(); // the events of this page, for who comes later
  function call(type, fields) {
    const one = message(type, fields);
    said.add(one.event);
    if (allowed().analytics) enqueue(one);
    else if (!chosen && waiting.length < MAX_QUEUE) waiting.push(one);
    emit("*", one);
    if (one.event) emit(one.event, one);
  }

  const track = (event, properties) => call("track", { event: String(event), properties: properties || {} });
  const alias = (userId, previousId) => call("alias", { userId: String(userId), previousId: previousId || anonymousId() });

  function page(name, properties) {
    if (name && typeof name === "object") [name, properties] = [undefined, name];
    newView();
    call("page", { name, properties: properties || {} });
    look();
  }

  function identify(userId, traits, options) {
    const who = String(userId), same = user && user.id === who;
    if (user && !same) reset(); // another person
    user = { id: who, hash: (options && options.userHash) || (same && user.hash) || "" };
    if (allowed().analytics) write("user", JSON.stringify(user));
    call("identify", { traits: traits || {} });
  }

  function reset() {
    track("Signed Out");
    user = null;
    erase("user");
    if (allowed().analytics) currentId(uuid());
  }

  // One localStorage key per call, so that tabs never overwrite each other.
  const outbox = new Map();
  let count = 0, sending = [], failures = 0, timer = 0, answered = null;

  function enqueue(one) {
    one.anonymousId = one.anonymousId || currentId();
    const text = JSON.stringify(one), key = `q.${Date.now()}.${1e6 + ++count}.${one.messageId}`;
    if (text.length > MAX_CALL) return console.warn("attimo: too long, not sent:", one.event || one.type);
    outbox.set(key, { text, who: one.anonymousId, kept: allowed().analytics && write(key, text) });
    if (outbox.size > MAX_QUEUE) leave([...outbox.keys()].find((old) => !sending.includes(old)));
    if (!timer) Promise.resolve().then(flush);
  }

  const leave = (key) => { outbox.delete(key); erase(key); };

  // What an earlier page could not hand over.
  function adopt() {
    keys("q.").sort().forEach((key) => {
      const text = read(key), one = parse(text);
      if (!one || !recent(key.split(".")[1], MAX_AGE)) erase(key);
      else if (!outbox.has(key)) outbox.set(key, { text, who: one.anonymousId, kept: true });
    });
  }

  // The server binds a browser to the one id that a request names.
  function take() {
    const taken = [];
    let size = 0, whose;
    for (const [key, { text, who, kept }] of outbox) {
      if (sending.includes(key)) continue;
      if (kept && read(key) === null) { outbox.delete(key); continue; } // sent by another tab
      whose = whose || who;
      size += text.length;
      if (taken.length && (who !== whose || taken.length >= MAX_BATCH || size > MAX_BODY)) break;
      taken.push(key);
    }
    return taken;
  }

  const body = (taken) => `{"batch":[${taken.map((key) => outbox.get(key).text)}],`
    + `"sentAt":"${new Date().toISOString()}","writeKey":${JSON.stringify(config.writeKey)}}`;
  const post = (path, text) => fetch(config.host + path, { // text/plain: no preflight; keepalive: at most 64 kB
    method: "POST", body: text, headers: { "Content-Type": "text/plain" }, credentials: "include",
    keepalive: text.length < 20000, signal: AbortSignal.timeout && AbortSignal.timeout(20000),
  });
  const backoff = (failed) => Math.min(60000, 500 * 2 ** failed) * (0.5 + Math.random() / 2);

  async function flush() {
    const taken = sending.length ? [] : take();
    if (!taken.length) return;
    clearTimeout(timer);
    timer = 0;
    sending = taken;
    const { who } = outbox.get(taken[0]);
    let status = 0, pause = 0;
    try {
      const answer = await post("/v1/batch", body(taken));
      status = answer.status;
      pause = Math.min(300, answer.headers.get("Retry-After")) * 1000;
    } catch { /* offline */ }
    sending = [];
    if (status < 200 || status > 499 || [401, 403, 408, 429].includes(status)) {
      timer = setTimeout(flush, pause || backoff(++failures));
      return;
    }
    failures = 0;
    taken.forEach(leave);
    if (status < 300 && allowed().analytics) emit("answered", (answered = who));
    flush();
  }

  // Whether a beacon arrives is never known: its calls stay, and the next page sends them again.
  function beacon() {
    const taken = take();
    if (taken.length) navigator.sendBeacon(config.host + "/v1/batch", body(taken));
  }

  const first = (value) => (Array.isArray(value) ? value[0] : value);
  const name = (value) => { const one = first(value); return one && typeof one === "object" ? one.name : one; };
  const absolute = (value) => attempt(() => value && new URL(value, location.href).href);

  // The schema.org products a page is about, not those of its lists.
  function products(node) {
    if (!node || typeof node !== "object") return [];
    if (Array.isArray(node)) return node.flatMap(products);
    if (/(^|[/:,])Product(Group)?(,|$)/.test(node["@type"])) return [node];
    return products([node["@graph"], node.mainEntity]);
  }

  function fromSchema(node) {
    let offer = first(node.offers) || {};
    offer = offer.price || offer.lowPrice ? offer : first(offer.offers) || offer;
    const terms = first(offer.priceSpecification) || {}, image = first(node.image) || {};
    const url = absolute(node.url || offer.url), price = +(offer.price || offer.lowPrice || terms.price);
    const product_id = node.productID || node.sku || node.productGroupID || node.mpn || node.gtin13 || node.gtin
      || node["@id"] || url;
    return product_id && {
      product_id: String(product_id), sku: node.sku,
      name: name(node.name), brand: name(node.brand), category: name(node.category),
      price: isFinite(price) ? price : undefined, currency: offer.priceCurrency || terms.priceCurrency,
      url, image_url: absolute(image.url || image.contentUrl || image),
    };
  }

  const marked = (element, mark) => element && parse(element.getAttribute("data-attimo-" + mark));

  function pageProduct() {
    const cards = document.querySelectorAll("[data-attimo-product]");
    if (cards.length) return cards.length === 1 && marked(cards[0], "product"); // many are a list
    const scripts = [...document.querySelectorAll('script[type="application/ld+json"]')];
    const found = products(scripts.map((one) => parse(one.textContent)));
    const here = found.length === 1 ? found[0] : found.find((one) => absolute(one.url) === location.href);
    return here && fromSchema(here);
  }

  const MARKS = {
    product: "Product Viewed", cart: "Cart Viewed", checkout: "Checkout Started", order: "Order Completed",
  };
  let view;
  const newView = () => { view = { at: performance.now(), deepest: 0, told: [] }; };

  function look() {
    for (const mark in MARKS) {
      const found = mark === "product" ? pageProduct() : marked(document.querySelector(`[data-attimo-${mark}]`), mark);
      const key = found && mark + (found.product_id || found.order_id), orders = parse(read("orders")) || [];
      if (!found || view.told.includes(key) || orders.includes(key)) continue;
      view.told.push(key);
      if (mark === "order" && allowed().analytics) { // a receipt may be reloaded
        write("orders", JSON.stringify([...orders, key].slice(-20)));
      }
      track(MARKS[mark], found);
    }
  }

  function clicked({ target }) {
    for (const [mark, event] of [["add", "Product Added"], ["remove", "Product Removed"]]) {
      const button = target.closest(`[data-attimo-${mark}]`);
      const product = button && (marked(button, mark)
        || marked(button.closest("[data-attimo-product]"), "product") || pageProduct());
      if (product) track(event, { quantity: 1, ...product });
    }
  }

  let lastExit = 0;
  // The page hears first (the widget shows in this frame), then the server.
  function exitIntent(signal) {
    if (view.exited || performance.now() - view.at < config.exitDwell
      || recent(Math.max(lastExit, read("exit")), config.exitCooldown)) return false;
    view.exited = true;
    lastExit = Date.now();
    performance.mark("attimo:exit-intent");
    const event = new CustomEvent("attimo:exit-intent", { cancelable: true, detail: { signal } });
    const shown = !document.dispatchEvent(event);
    if (allowed().analytics) write("exit", lastExit);
    track("Exit Intent", { signal });
    return shown;
  }

  function watchExit() {
    const pointer = [], scrolls = [];
    let touched = -1e9, trapped = false;
    const rise = (trail, time, height, ms) => { // px and px/ms
      const [then, from] = trail.find((one) => time - one[0] < ms) || trail[trail.length - 1] || [time, height];
      trail.push([time, height]);
      if (trail.length > 10) trail.shift();
      return [from - height, (from - height) / Math.min(ms, Math.max(1, time - then))];
    };
    listen(document, "mousemove", ({ timeStamp, clientY }) => rise(pointer, timeStamp, clientY, 100));
    listen(document, "mouseout", ({ timeStamp, clientY, relatedTarget }) => {
      if (!relatedTarget && clientY <= 0 && rise(pointer, timeStamp, clientY, 100)[1] >= 0.2) exitIntent("pointer");
    });
    listen(document, "touchmove", ({ timeStamp }) => { touched = timeStamp; });
    listen(document, "scroll", ({ timeStamp }) => {
      const [far, speed] = rise(scrolls, timeStamp, scrollY, 150);
      view.deepest = Math.max(view.deepest, scrollY);
      const byHand = timeStamp - touched < 1500 && view.deepest > innerHeight / 2;
      if (byHand && far > 100 && speed >= 1.5) exitIntent("scroll_up");
    });
    if (+config.exitIdle) {
      let resting = 0;
      const rest = () => {
        clearTimeout(resting);
        if (!document.hidden) resting = setTimeout(guard(() => exitIntent("idle")), Math.max(config.exitIdle, config.exitDwell));
      };
      for (const name of ["pointerdown", "pointermove", "touchmove", "scroll", "keydown", "visibilitychange"]) listen(document, name, rest);
      rest();
    }
    if (config.exitBack !== "true") return;
    listen(window, "pointerdown", () => { if (!trapped) history.pushState({ attimo: (trapped = true) }, ""); });
    listen(window, "popstate", () => { if (trapped && !(trapped = false) && !exitIntent("back")) history.back(); });
  }

  function watchPages() {
    let last = location.href, soon = 0;
    const where = (url) => url.split("#")[0];
    const moved = () => setTimeout(guard(() => { // after the title
      if (where(last) === where(location.href)) return;
      [referrer, last] = [last, location.href];
      page();
    }));
    for (const method of ["pushState", "replaceState"]) {
      const original = history[method];
      history[method] = function (...args) { original.apply(this, args); moved(); };
    }
    listen(window, "popstate", moved);
    listen(window, "pageshow", ({ persisted }) => persisted && page());
    new MutationObserver(() => { soon = soon || setTimeout(guard(() => { soon = 0; look(); }), 100); })
      .observe(document.documentElement, { childList: true, subtree: true });
  }

  function start() {
    if (document.prerendering) return listen(document, "prerenderingchange", start);
    const calls = Array.isArray(early) ? early : [], settings = (is) => ([method]) => (method === "config") === is;
    calls.filter(settings(true)).forEach(api.push);
    newView();
    if (allowed().analytics) { adopt(); settle({}, true); }
    listen(document, "click", clicked);
    listen(window, "online", () => { failures = 0; flush(); });
    listen(document, "visibilitychange", () => document.hidden && beacon());
    listen(window, "storage", ({ key, newValue }) => {
      if (key === "attimo.consent") { const was = allowed(); chosen = parse(newValue); settle(was); }
      if (key === "attimo.user") user = parse(newValue);
      if (key === "attimo.id" && newValue) anonymousId();
    });
    watchExit();
    if (config.auto !== "false") { watchPages(); page(); }
    calls.filter(settings(false)).forEach(api.push);
    flush();
  }

  const api = {
    page, track, identify, alias, reset, consent, anonymousId, on, config: (options) => { Object.assign(config, options); },
  };
  for (const key in api) api[key] = guard(api[key]);
  api.push = guard(([method, ...args]) => api[method](...args));
  api.version = "0.1.0";
  api._ = { config, allowed, rebind, recent, read, write, post, backoff, attempt, guard, listen, said, answered: () => answered };
  window.attimo = api;
  if (document.readyState === "loading") listen(document, "DOMContentLoaded", start);
  else guard(start)();
})();
