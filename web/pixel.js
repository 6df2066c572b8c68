/* attimo pixel: records what a visitor does. Documentation: docs/pixel.md */
(() => {
  "use strict";
  const queuedCalls = window.attimo;
  if (queuedCalls && queuedCalls.version) return;
  const script = document.currentScript || document.querySelector("script[data-write-key]");
  const config = { host: "", exitDwell: 3000, exitCooldown: 30000, ...(script && script.dataset) };
  const MAX_CALL = 32000, MAX_BODY = 48000, MAX_BATCH = 50, MAX_QUEUE = 200;
  const MAX_AGE = 47 * 3600e3; // the server knows a messageId for 48 hours

  const tryOr = (fn, fallback) => { try { return fn(); } catch { return fallback; } };
  const read = (key) => tryOr(() => localStorage.getItem("attimo." + key), null);
  const write = (key, value) => tryOr(() => { localStorage.setItem("attimo." + key, value); return true; });
  const remove = (key) => tryOr(() => localStorage.removeItem("attimo." + key));
  const storedKeys = (start) => tryOr(() => Object.keys(localStorage), [])
    .filter((key) => key.startsWith("attimo." + start)).map((key) => key.slice(7));
  const parse = (text) => tryOr(() => JSON.parse(text), null);
  const guarded = (fn) => (...args) => { try { return fn(...args); } catch (error) { console.warn("attimo:", error); } };
  const addListener = (target, event, fn) => target.addEventListener(event, guarded(fn), { capture: event === "click", passive: true });
  const isWithin = (time, ms) => Math.abs(Date.now() - time) < ms;
  const uuid = () => "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"
    .replace(/x/g, () => (crypto.getRandomValues(new Uint8Array(1))[0] & 15).toString(16));

  const listeners = {};
  const on = (name, fn) => { (listeners[name] = listeners[name] || []).push(guarded(fn)); };
  const emit = (name, detail) => (listeners[name] || []).forEach((fn) => fn(detail));

  let consentChoice = parse(read("consent")); // null: no choice yet
  let pendingCalls = [];

  function consentState() {
    const open = config.consent !== "required", choice = { analytics: open, marketing: open, ...consentChoice };
    const gpc = navigator.globalPrivacyControl === true;
    const analytics = choice.analytics === true && !(gpc && config.gpcAnalytics === "false");
    return { analytics, marketing: analytics && choice.marketing === true && !gpc };
  }

  function consent(choice) {
    const previous = consentState();
    consentChoice = { ...consentChoice, ...choice };
    write("consent", JSON.stringify(consentChoice));
    applyConsent(previous, true);
  }

  function applyConsent(previous, report) {
    const now = consentState(), code = JSON.stringify(now);
    const update = () => buildCall("track", { event: "Consent Updated", properties: now, anonymousId: currentId() });
    if (now.analytics) {
      const reported = read("consent_reported") || (config.consent === "required" ? "" : '{"analytics":true,"marketing":true}');
      if (report && reported !== code) enqueue(update());
      write("consent_reported", code);
      if (user) write("user", JSON.stringify(user));
      pendingCalls.forEach(enqueue);
    } else if (previous.analytics) { // withdrawn: keep the choice only
      const last = report && update();
      queue.clear();
      storedKeys("").forEach((key) => key !== "consent" && remove(key));
      setCookie("", 0);
      id = user = acknowledgedId = null;
      if (last) enqueue(last);
    }
    if (consentChoice) pendingCalls = [];
    emit("consent", now);
  }

  let id = null, user = parse(read("user"));
  const valid = (text) => (/^[\w.-]{8,64}$/.test(text || "") ? text : null);
  const setCookie = (value, days) => {
    document.cookie = `attimo_id=${value};path=/;samesite=lax;max-age=${days * 86400}`
      + (config.cookieDomain ? ";domain=" + config.cookieDomain : "") + (location.protocol === "https:" ? ";secure" : "");
  };

  // Cookie and localStorage restore each other. If they differ, the cookie wins.
  function currentId(newId) {
    const old = id, storedId = valid(read("id"));
    const cookie = valid((/(?:^|; )attimo_id=([^;]*)/.exec(document.cookie) || [])[1]);
    id = newId || cookie || storedId || id || uuid();
    if (cookie !== id) setCookie(id, 400);
    if (storedId !== id) write("id", id);
    if (old && old !== id) emit("identity", id);
    return id;
  }
  const anonymousId = () => (consentState().analytics ? currentId() : null);

  // The id is bound to another browser: take a new one, once a day, because some browsers reject the cookie.
  function rebind() {
    if (isWithin(read("rebound_at"), 86400e3)) return false;
    write("rebound_at", Date.now());
    currentId(uuid());
    page();
    return true;
  }

  let referrer = document.referrer;
  function buildCall(type, fields) {
    const { pathname, search, href } = location, campaign = {}, agent = navigator.userAgentData;
    const cut = (text) => text.slice(0, 2000);
    new URLSearchParams(search).forEach((value, key) => {
      if (key.startsWith("utm_")) campaign[key === "utm_campaign" ? "name" : key.slice(4)] = value.slice(0, 200);
    });
    const page = {
      url: cut(href.split("#")[0]), path: cut(pathname), search: cut(search),
      title: cut(document.title), referrer: cut(referrer),
    };
    if (type === "page") fields.properties = { ...page, ...fields.properties }; // as the Segment spec defines it
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

  const sentEvents = new Set(); // names of the events on this page, for the widget
  function sendCall(type, fields) {
    const call = buildCall(type, fields);
    sentEvents.add(call.event);
    if (consentState().analytics) enqueue(call);
    else if (!consentChoice && pendingCalls.length < MAX_QUEUE) pendingCalls.push(call);
    emit("*", call);
    if (call.event) emit(call.event, call);
  }

  const track = (event, properties) => sendCall("track", { event: String(event), properties: properties || {} });
  const alias = (userId, previousId) => sendCall("alias", { userId: String(userId), previousId: previousId || anonymousId() });

  function page(name, properties) {
    if (name && typeof name === "object") [name, properties] = [undefined, name];
    startView();
    sendCall("page", { name, properties: properties || {} });
    scanMarkup();
  }

  function identify(userId, traits, options) {
    const next = String(userId), isSame = user && user.id === next;
    if (user && !isSame) reset(); // another person
    user = { id: next, hash: (options && options.userHash) || (isSame && user.hash) || "" };
    if (consentState().analytics) write("user", JSON.stringify(user));
    sendCall("identify", { traits: traits || {} });
  }

  function reset() {
    track("Signed Out");
    user = null;
    remove("user");
    if (consentState().analytics) currentId(uuid());
  }

  // One localStorage key per call, so that tabs do not overwrite each other.
  const queue = new Map();
  let count = 0, inFlight = [], failures = 0, timer = 0, acknowledgedId = null;

  function enqueue(call) {
    call.anonymousId = call.anonymousId || currentId();
    const text = JSON.stringify(call), key = `queue.${Date.now()}.${1e6 + ++count}.${call.messageId}`;
    if (text.length > MAX_CALL) return console.warn("attimo: over 32 kB, not sent:", call.event || call.type);
    queue.set(key, { text, anonymousId: call.anonymousId, stored: consentState().analytics && write(key, text) });
    if (queue.size > MAX_QUEUE) dequeue([...queue.keys()].find((old) => !inFlight.includes(old)));
    if (!timer) Promise.resolve().then(flush);
  }

  const dequeue = (key) => { queue.delete(key); remove(key); };

  // Calls that an earlier page could not send.
  function restoreQueue() {
    storedKeys("queue.").sort().forEach((key) => {
      const text = read(key), call = parse(text);
      if (!call || !isWithin(key.split(".")[1], MAX_AGE)) remove(key);
      else if (!queue.has(key)) queue.set(key, { text, anonymousId: call.anonymousId, stored: true });
    });
  }

  // One anonymous id per request, because the server binds the browser to it.
  function nextBatch() {
    const batch = [];
    let size = 0, batchId;
    for (const [key, { text, anonymousId, stored }] of queue) {
      if (inFlight.includes(key)) continue;
      if (stored && read(key) === null) { queue.delete(key); continue; } // sent by another tab
      batchId = batchId || anonymousId;
      size += text.length;
      if (batch.length && (anonymousId !== batchId || batch.length >= MAX_BATCH || size > MAX_BODY)) break;
      batch.push(key);
    }
    return batch;
  }

  const batchBody = (batch) => `{"batch":[${batch.map((key) => queue.get(key).text)}],`
    + `"sentAt":"${new Date().toISOString()}","writeKey":${JSON.stringify(config.writeKey)}}`;
  const post = (path, text) => fetch(config.host + path, { // text/plain: no preflight; keepalive: at most 64 kB
    method: "POST", body: text, headers: { "Content-Type": "text/plain" }, credentials: "include",
    keepalive: text.length < 20000, signal: AbortSignal.timeout && AbortSignal.timeout(20000),
  });
  const backoff = (failures) => Math.min(60000, 500 * 2 ** failures) * (0.5 + Math.random() / 2);

  async function flush() {
    const batch = inFlight.length ? [] : nextBatch();
    if (!batch.length) return;
    clearTimeout(timer);
    timer = 0;
    inFlight = batch;
    const { anonymousId } = queue.get(batch[0]);
    let status = 0, pause = 0;
    try {
      const response = await post("/v1/batch", batchBody(batch));
      status = response.status;
      pause = Math.min(300, response.headers.get("Retry-After")) * 1000;
    } catch { /* offline */ }
    inFlight = [];
    if (status < 200 || status > 499 || [401, 403, 408, 429].includes(status)) {
      timer = setTimeout(flush, pause || backoff(++failures));
      return;
    }
    failures = 0;
    batch.forEach(dequeue);
    if (status < 300 && consentState().analytics) emit("acknowledged", (acknowledgedId = anonymousId));
    flush();
  }

  // The result of a beacon is unknown: its calls stay queued, and the next page sends them again.
  function beacon() {
    const batch = nextBatch();
    if (batch.length) navigator.sendBeacon(config.host + "/v1/batch", batchBody(batch));
  }

  const firstOf = (value) => (Array.isArray(value) ? value[0] : value);
  const nameOf = (value) => { const item = firstOf(value); return item && typeof item === "object" ? item.name : item; };
  const absoluteUrl = (value) => tryOr(() => value && new URL(value, location.href).href);

  // The schema.org products of the page itself, not those of its lists.
  function products(node) {
    if (!node || typeof node !== "object") return [];
    if (Array.isArray(node)) return node.flatMap(products);
    if (/(^|[/:,])Product(Group)?(,|$)/.test(node["@type"])) return [node];
    return products([node["@graph"], node.mainEntity]);
  }

  function fromSchema(node) {
    let offer = firstOf(node.offers) || {};
    offer = offer.price || offer.lowPrice ? offer : firstOf(offer.offers) || offer;
    const terms = firstOf(offer.priceSpecification) || {}, image = firstOf(node.image) || {};
    const url = absoluteUrl(node.url || offer.url), price = +(offer.price || offer.lowPrice || terms.price);
    const product_id = node.productID || node.sku || node.productGroupID || node.mpn || node.gtin13 || node.gtin
      || node["@id"] || url;
    return product_id && {
      product_id: String(product_id), sku: node.sku,
      name: nameOf(node.name), brand: nameOf(node.brand), category: nameOf(node.category),
      price: isFinite(price) ? price : undefined, currency: offer.priceCurrency || terms.priceCurrency,
      url, image_url: absoluteUrl(image.url || image.contentUrl || image),
    };
  }

  const readMarkup = (element, mark) => element && parse(element.getAttribute("data-attimo-" + mark));

  function pageProduct() {
    const cards = document.querySelectorAll("[data-attimo-product]");
    if (cards.length) return cards.length === 1 && readMarkup(cards[0], "product"); // several are a list
    const scripts = [...document.querySelectorAll('script[type="application/ld+json"]')];
    const found = products(scripts.map((one) => parse(one.textContent)));
    const here = found.length === 1 ? found[0] : found.find((one) => absoluteUrl(one.url) === location.href);
    return here && fromSchema(here);
  }

  const MARKUP_EVENTS = {
    product: "Product Viewed", cart: "Cart Viewed", checkout: "Checkout Started", order: "Order Completed",
  };
  let view;
  const startView = () => { view = { startedAt: performance.now(), lowest: 0, reported: [] }; };

  function scanMarkup() {
    for (const mark in MARKUP_EVENTS) {
      const found = mark === "product" ? pageProduct() : readMarkup(document.querySelector(`[data-attimo-${mark}]`), mark);
      const key = found && mark + (found.product_id || found.order_id), orders = parse(read("orders")) || [];
      if (!found || view.reported.includes(key) || orders.includes(key)) continue;
      view.reported.push(key);
      if (mark === "order" && consentState().analytics) { // the receipt may be reloaded
        write("orders", JSON.stringify([...orders, key].slice(-20)));
      }
      track(MARKUP_EVENTS[mark], found);
    }
  }

  function onClick({ target }) {
    for (const [mark, event] of [["add", "Product Added"], ["remove", "Product Removed"]]) {
      const button = target.closest(`[data-attimo-${mark}]`);
      const product = button && (readMarkup(button, mark)
        || readMarkup(button.closest("[data-attimo-product]"), "product") || pageProduct());
      if (product) track(event, { quantity: 1, ...product });
    }
  }

  let lastExit = 0;
  // Notify the page first, so that the widget shows in this frame, then the server.
  function exitIntent(signal) {
    if (view.exited || performance.now() - view.startedAt < config.exitDwell
      || isWithin(Math.max(lastExit, read("last_exit_intent")), config.exitCooldown)) return false;
    view.exited = true;
    lastExit = Date.now();
    performance.mark("attimo:exit-intent");
    const event = new CustomEvent("attimo:exit-intent", { cancelable: true, detail: { signal } });
    const shown = !document.dispatchEvent(event);
    if (consentState().analytics) write("last_exit_intent", lastExit);
    track("Exit Intent", { signal });
    return shown;
  }

  function detectExitIntent() {
    const pointer = [], scrolls = [];
    let lastTouch = -1e9, added = false;
    const speedOf = (trail, time, height, ms) => { // px and px/ms
      const [since, from] = trail.find((one) => time - one[0] < ms) || trail[trail.length - 1] || [time, height];
      trail.push([time, height]);
      if (trail.length > 10) trail.shift();
      return [from - height, (from - height) / Math.min(ms, Math.max(1, time - since))];
    };
    addListener(document, "mousemove", ({ timeStamp, clientY }) => speedOf(pointer, timeStamp, clientY, 100));
    addListener(document, "mouseout", ({ timeStamp, clientY, relatedTarget }) => {
      if (!relatedTarget && clientY <= 0 && speedOf(pointer, timeStamp, clientY, 100)[1] >= 0.2) exitIntent("pointer");
    });
    addListener(document, "touchmove", ({ timeStamp }) => { lastTouch = timeStamp; });
    addListener(document, "scroll", ({ timeStamp }) => {
      const [distance, speed] = speedOf(scrolls, timeStamp, scrollY, 150);
      view.lowest = Math.max(view.lowest, scrollY);
      const byHand = timeStamp - lastTouch < 1500 && view.lowest > innerHeight / 2;
      if (byHand && distance > 100 && speed >= 1.5) exitIntent("scroll_up");
    });
    if (+config.exitIdle) {
      let idleTimer = 0;
      const restart = () => {
        clearTimeout(idleTimer);
        if (!document.hidden) idleTimer = setTimeout(guarded(() => exitIntent("idle")), Math.max(config.exitIdle, config.exitDwell));
      };
      for (const name of ["pointerdown", "pointermove", "touchmove", "scroll", "keydown", "visibilitychange"]) addListener(document, name, restart);
      restart();
    }
    if (config.exitBack !== "true") return;
    addListener(window, "pointerdown", () => { if (!added) history.pushState({ attimo: (added = true) }, ""); });
    addListener(window, "popstate", () => { if (added && !(added = false) && !exitIntent("back")) history.back(); });
  }

  function detectNavigation() {
    let last = location.href, scanTimer = 0;
    const noHash = (url) => url.split("#")[0];
    const onNavigation = () => setTimeout(guarded(() => { // after the title was set
      if (noHash(last) === noHash(location.href)) return;
      [referrer, last] = [last, location.href];
      page();
    }));
    for (const method of ["pushState", "replaceState"]) {
      const original = history[method];
      history[method] = function (...args) { original.apply(this, args); onNavigation(); };
    }
    addListener(window, "popstate", onNavigation);
    addListener(window, "pageshow", ({ persisted }) => persisted && page());
    new MutationObserver(() => { scanTimer = scanTimer || setTimeout(guarded(() => { scanTimer = 0; scanMarkup(); }), 100); })
      .observe(document.documentElement, { childList: true, subtree: true });
  }

  function start() {
    if (document.prerendering) return addListener(document, "prerenderingchange", start);
    const calls = Array.isArray(queuedCalls) ? queuedCalls : [], settings = (is) => ([method]) => (method === "config") === is;
    calls.filter(settings(true)).forEach(api.push);
    startView();
    if (consentState().analytics) { restoreQueue(); applyConsent({}, true); }
    addListener(document, "click", onClick);
    addListener(window, "online", () => { failures = 0; flush(); });
    addListener(document, "visibilitychange", () => document.hidden && beacon());
    addListener(window, "storage", ({ key, newValue }) => {
      if (key === "attimo.consent") { const previous = consentState(); consentChoice = parse(newValue); applyConsent(previous); }
      if (key === "attimo.user") user = parse(newValue);
      if (key === "attimo.id" && newValue) anonymousId();
    });
    detectExitIntent();
    if (config.auto !== "false") { detectNavigation(); page(); }
    calls.filter(settings(false)).forEach(api.push);
    flush();
  }

  const api = {
    page, track, identify, alias, reset, consent, anonymousId, on, config: (options) => { Object.assign(config, options); },
  };
  for (const key in api) api[key] = guarded(api[key]);
  api.push = guarded(([method, ...args]) => api[method](...args));
  api.version = "0.1.0";
  api._ = { config, consentState, rebind, isWithin, read, write, post, backoff, tryOr, guarded, addListener, sentEvents, acknowledgedId: () => acknowledgedId };
  window.attimo = api;
  if (document.readyState === "loading") addListener(document, "DOMContentLoaded", start);
  else guarded(start)();
})();
