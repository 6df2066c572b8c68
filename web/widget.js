/* attimo widget: what a visitor is shown. How and why: docs/actions.md */
(() => {
  "use strict";
  const pixel = window.attimo;
  if (!pixel || !pixel._ || pixel.widget) return;
  pixel.widget = true;
  const { config, allowed, rebind, recent, read, write, post, backoff, attempt, guard, listen, said, answered } = pixel._;
  const words = config.words || ["Close", "No, thanks", "Copy", "Copied"];
  const CSS = `:host{all:initial!important;display:none!important}
:host([open]){display:block!important}
:host([data-format=bar]){position:sticky!important;top:0!important;z-index:2147483646!important}
*{box-sizing:border-box;margin:0}
.offer{padding:0;border:0;color:var(--attimo-text,#22302b);background:var(--attimo-background,#fff);
  font:16px/1.5 var(--attimo-font,system-ui,sans-serif);overflow-wrap:anywhere}
.offer:focus{outline:0}
.popup,.banner{position:fixed;width:calc(100vw - 32px);max-width:28em;max-height:calc(100vh - 32px);
  overflow:auto;border-radius:16px;box-shadow:0 12px 48px #0004}
.popup{inset:0;height:fit-content;margin:auto}
.popup::backdrop{background:#1a2420a6}
.banner{right:16px;bottom:16px;z-index:2147483646;font-size:14px}
.card{position:relative;display:grid;gap:.75em;padding:1.75em}
.picture{width:calc(100% + 3.5em);margin:-1.75em -1.75em .5em;max-height:12em;object-fit:cover}
h2{font-size:1.4em;line-height:1.25;padding-right:1.5em}
.text *{max-width:100%}.text a{color:inherit}
.coupon,.actions{display:flex;flex-wrap:wrap;gap:8px;align-items:center}
.coupon{border:1px dashed;border-radius:8px;padding-left:1em}
code{flex:1;font:600 1.05em monospace}
button,.yes{flex:1 1 9em;min-height:44px;padding:9px 14px;font:inherit;font-weight:600;text-align:center;
  text-decoration:none;color:inherit;background:none;border:1px solid;border-radius:8px;cursor:pointer}
.yes,.bar{color:var(--attimo-on-accent,#fff);background:var(--attimo-accent,#22302b)}
.copy{flex:none;border:0;text-decoration:underline}
.close{position:absolute;top:8px;right:8px;width:44px;padding:0;border:0;border-radius:50%;font-size:24px;
  line-height:1;background:inherit}
:focus-visible{outline:3px solid #4a90d9;outline-offset:2px}
.bar .card{min-height:52px;display:flex;flex-wrap:wrap;align-items:center;justify-content:center;gap:4px 16px;padding:8px 60px 8px 16px}
.bar .close{top:calc(50% - 22px)}.bar h2{font-size:1em;padding:0}.bar .picture{display:none}
@media(prefers-reduced-motion:no-preference){.popup,.banner{animation:rise .2s ease-out}
  @keyframes rise{from{transform:translateY(12px)}}}`;

  const held = new Map(); // by campaign: ready
  const shown = new Map(); // by place: on the page
  // Each format has one place; a slot's is the element itself, once it is there.
  const placeOf = ({ format, slot }) => (format === "slot" ? attempt(() => document.body.querySelector(slot)) : format);
  const kept = (key) => attempt(() => JSON.parse(read(key)), 0) || [];
  const keep = (key, value) => write(key, JSON.stringify([...kept(key), value].slice(-200)));
  const mine = [];
  const done = (id) => mine.includes(id) || kept("done").includes(id);
  const tell = (name, { id, campaign, format }, reason) => document.dispatchEvent(new CustomEvent("attimo:" + name, {
    detail: { action_id: id, campaign, format, reason },
  }));
  const report = (event, { id, campaign }) => pixel.track(event, { action_id: id, campaign });
  function saw(entry) { // once; who answers an offer has seen it, however soon
    if (!entry.seen) report("Offer Shown", entry.action);
    entry.seen = true;
  }

  function visit() {
    const [start, last] = kept("visit"), began = recent(last, 1800e3) ? start : Date.now(); // half an hour
    if (allowed().analytics) write("visit", JSON.stringify([began, Date.now()]));
    return began;
  }
  const OVER = /^(Order Completed|Signed Out)$/;
  // What a coupon is worth: told to the page that shows it, and to the next ones while it is good.
  let worth = attempt(() => JSON.parse(sessionStorage.getItem("attimo.discount"))) || [];
  pixel.discount = () => (allowed().marketing && worth[1] > Date.now() ? worth[0] : null);
  const hear = (detail) => document.dispatchEvent(new CustomEvent("attimo:discount", { detail }));
  function value(discount, until) {
    worth = [discount, until];
    attempt(() => sessionStorage[discount ? "setItem" : "removeItem"]("attimo.discount", JSON.stringify(worth)));
    hear(discount);
  }
  const dismissed = (campaign) => kept("dismissed").some(([name, when]) => name === campaign && when === visit());

  // Sanitised by the server, built anew here from what is allowed.
  const KEEP = /^(A|P|BR|B|STRONG|I|EM|U|S|SMALL|SPAN|DIV|UL|OL|LI|H[1-6]|IMG|HR|TABLE|T(HEAD|BODY|R|H|D))$/;
  const safe = (url) => attempt(() => {
    const { protocol, href } = new URL(url, location.href);
    return !!url && /^https?:$/.test(protocol) && href;
  });
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const name in attributes) { // an empty alt says something: a picture for the eye alone
      if (attributes[name] || attributes[name] === "") element.setAttribute(name, attributes[name]);
    }
    element.append(...children.filter(Boolean));
    return element;
  }
  function clean(from, to) {
    for (const node of from.childNodes) {
      const tag = node.nodeName;
      if (node.nodeType === 3) to.append(node.data);
      if (node.nodeType !== 1 || /^(script|style|template|noscript|iframe)$/i.test(tag)) continue;
      const get = (name) => node.getAttribute(name);
      if (!KEEP.test(tag)) clean(node, to);
      else {
        const href = tag === "A" && safe(get("href")), src = tag === "IMG" && safe(get("src"));
        to.append(clean(node, make(tag, { href, src, alt: get("alt") })));
      }
    }
    return to;
  }

  const sheet = new CSSStyleSheet(); // passes any CSP
  sheet.replaceSync(CSS);
  function render(entry) {
    const { action } = entry, { format } = action, popup = format === "popup", slot = format === "slot";
    const kind = slot ? "part" : "class"; // a slot is styled by the shop, whose classes are not ours
    const text = (key) => String(action.content[key] || "");
    const title = text("title"), image = safe(text("image_url")), url = safe(text("url")), coupon = text("coupon");
    const button = (label, name, act, href) => {
      const one = make(href ? "a" : "button", { [kind]: name, href, type: !href && "button" }, label);
      one.onclick = act;
      return one;
    };
    const no = () => dismiss(entry), click = () => {
      saw(entry);
      report("Offer Clicked", action);
      tell("clicked", action);
      if (!slot) setTimeout(() => close(entry)); // the link first
    };
    const yes = text("button") && button(text("button"), "yes", click, url);
    const cross = button("×", "close", no), code = make("code", {}, coupon);
    const copy = button(words[2], "copy", () => {
      getSelection().selectAllChildren(code);
      if (navigator.clipboard) navigator.clipboard.writeText(coupon).then(() => { copy.textContent = words[3]; }, () => {});
    });
    const given = new DOMParser().parseFromString(text("html"), "text/html").body;
    const body = clean(given, make("div", { [kind]: "text", id: !slot && "text" }));
    cross.ariaLabel = words[0];
    copy.ariaLive = "polite";
    body.onclick = ({ target }) => target.closest("a[href]") && click();
    const parts = [
      image && make("img", { [kind]: "picture", src: image, alt: "" }), title && make("h2", {}, title), body,
      coupon && make("div", { [kind]: "coupon" }, code, copy)];
    const host = entry.host = make("attimo-offer", { "data-format": format }, ...(slot ? [...parts, yes] : []));
    if (slot) return host.style.display = "contents";
    const root = host.attachShadow({ mode: config.shadow || "closed" });
    const box = entry.box = make(popup ? "dialog" : "section", {
      class: "offer " + format, tabindex: "-1", role: popup ? "dialog" : "region", "aria-modal": popup && "true",
      "aria-label": title || "Offer", "aria-describedby": "text",
    }, make("div", { class: "card" }, ...parts,
      make("div", { class: "actions" }, yes, format !== "bar" && button(words[yes ? 1 : 0], "no", no)), cross));
    let pressed;
    box.onpointerdown = ({ target }) => { pressed = target; };
    box.onclick = ({ target }) => { if (popup && target === box && pressed === box) no(); };
    box.onclose = no;
    box.oncancel = box.onkeydown = (event) => {
      const stops = [...box.querySelectorAll("a[href],button")], last = stops.length - 1;
      const at = stops.indexOf(root.activeElement), back = event.shiftKey;
      if (event.type === "cancel" || event.key === "Escape") no();
      else if (event.key === "Tab" && popup && (back ? at < 1 : at === last)) stops[back ? last : 0].focus();
      else return;
      event.preventDefault();
    };
    root.adoptedStyleSheets = [sheet];
    root.append(box);
    document.body[format === "bar" ? "prepend" : "append"](host);
  }

  function show(entry) {
    const { action, box, host, until } = entry, { discount } = action, place = entry.place = placeOf(action);
    if (!place) return; // gone meanwhile
    close(shown.get(place), "replaced");
    forget(entry);
    shown.set(place, entry);
    if (box) {
      entry.back = document.activeElement;
      host.setAttribute("open", "");
      if (box.showModal) { box.showModal(); box.focus(); }
    } else {
      entry.before = [...place.childNodes];
      place.replaceChildren(host);
    }
    performance.mark("attimo:shown");
    tell("shown", action);
    // How long it is good, by the server's times: visitors' clocks are wrong.
    const left = discount && until - performance.now() + (discount.expires_at || 9e15) - action.not_after;
    if (discount) value(discount, Date.now() + left);
  }
  function close(entry, reason) {
    if (!entry || shown.get(entry.place) !== entry) return;
    const { action, box, host, back, before, place } = entry;
    shown.delete(place);
    if (box && box.close) box.close();
    host.replaceWith(...before);
    if (back) back.focus({ preventScroll: true });
    if (reason) tell("disarmed", action, reason);
    setTimeout(offer);
  }
  function dismiss(entry) {
    const { action } = entry;
    if (shown.get(entry.place) !== entry) return;
    keep("dismissed", [action.campaign, visit()]);
    close(entry);
    drop(held.get(action.campaign), "dismissed");
    saw(entry);
    report("Offer Dismissed", action);
    tell("dismissed", action);
  }

  // One tab carries out an action; it keeps the lock until the others have heard.
  function claim({ id }, then) {
    const take = guard((lock) => {
      const won = lock && !done(id);
      if (won) { mine.push(id); keep("done", id); }
      then(won);
      return lock && new Promise((free) => setTimeout(free, 5000));
    });
    if (navigator.locks) navigator.locks.request("attimo." + id, { ifAvailable: true }, take);
    else take(true); // plain http
  }

  const rank = ({ action }) => +action.priority || 0;
  // The best per place for this trigger; without one, what waits to be shown.
  function offer(trigger) {
    shown.forEach((one) => one.host.isConnected || close(one)); // the page was drawn anew
    if (document.hidden || !allowed().marketing) return;
    const ready = ({ action, until, claimed }) => !claimed && action.trigger === trigger
      && until > performance.now() && !done(action.id) && !dismissed(action.campaign);
    const order = (a, b) => rank(a) - rank(b) || a.action.at - b.action.at; // the last is the best
    const waiting = [...held.values()].filter(ready).sort(order).map((one) => [placeOf(one.action), one]);
    new Map(waiting).forEach((best, place) => {
      const now = shown.get(place);
      // Nobody closes what fills a slot, so the next one does.
      if (!place || (now && rank(now) >= rank(best) + !best.box)) return;
      best.claimed = true;
      if (trigger) show(best); // in this frame; gone again if another tab was quicker
      claim(best.action, (won) => {
        if (!won) return trigger ? close(best, "elsewhere") : drop(best, "elsewhere");
        if (!trigger && held.get(best.action.campaign) === best) show(best);
        requestAnimationFrame(() => best.place && best.host.isConnected && saw(best));
      });
    });
  }

  function take(action) {
    const { id, campaign, format, type, expires_in_ms: left } = action, old = held.get(campaign);
    if (!id || !campaign || !/^(popup|banner|bar|slot)$/.test(format) || !/^(arm|send)$/.test(type)) return;
    if (old && old.action.id === id) return;
    drop(old, "replaced");
    if (!(left > 0) || done(id) || dismissed(campaign) || held.size > 49) return;
    const trigger = type === "arm" ? action.trigger || "exit_intent" : undefined; // the default is not sent
    const entry = { action: { content: {}, ...action, trigger }, before: [], until: performance.now() + left };
    render(entry);
    entry.timer = setTimeout(drop, Math.min(left, 2147483647), entry, "expired");
    held.set(campaign, entry);
    tell("armed", action);
    if (type === "send") offer();
  }
  function forget(entry) {
    clearTimeout(entry.timer);
    if (held.get(entry.action.campaign) === entry) held.delete(entry.action.campaign);
  }
  function drop(entry, reason) {
    if (!entry || shown.get(entry.place) === entry) return;
    forget(entry);
    entry.host.remove();
    tell("disarmed", entry.action, reason);
  }
  const dropWhere = (test, reason) => held.forEach((entry) => test(entry.action) && drop(entry, reason));
  function takeBack(test, reason) { // what fills a slot, too
    dropWhere(test, reason);
    shown.forEach((entry) => entry.box || (test(entry.action) && close(entry, reason)));
  }
  function clear(reason) {
    dropWhere(() => true, reason);
    shown.forEach((entry) => close(entry, reason));
    if (worth[0]) value(null);
  }
  pixel.on("*", ({ type, event = { page: "Page Viewed", identify: "Identified" }[type] }) => {
    visit();
    if (OVER.test(event)) clear(event);
    takeBack(({ disarm_on }) => disarm_on && disarm_on.includes(event), event);
  });
  document.addEventListener("attimo:exit-intent", guard((event) => {
    offer("exit_intent");
    if ([...shown.values()].some((one) => one.box)) event.preventDefault(); // a slot keeps nobody
  }));

  let source = null, busy = false, failures = 0, timer = 0, hiding = 0;
  const messages = {
    armed(list) {
      failures = 0;
      dropWhere(({ campaign }) => !list.some((one) => one.campaign === campaign), "disarm");
      list.forEach(take);
    },
    arm: take, send: take, disarm: ({ campaign }) => takeBack((one) => one.campaign === campaign, "disarm"),
  };
  function disconnect() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }
  function again() {
    disconnect();
    timer = setTimeout(connect, backoff(++failures));
  }
  async function connect() {
    const anonymousId = answered();
    // Not before the server answered a call; hidden tabs leave the few connections to others.
    if (!anonymousId || anonymousId !== pixel.anonymousId() || !allowed().marketing || document.hidden || source || busy) return;
    clearTimeout(timer);
    busy = true;
    try {
      const answer = await post("/v1/stream/token", JSON.stringify({ anonymousId }));
      const { token, code } = await answer.json();
      busy = false;
      if (code === "not_bound" && rebind()) return;
      if (!answer.ok || anonymousId !== pixel.anonymousId()) return again();
      source = new EventSource(config.host + "/v1/stream?token=" + encodeURIComponent(token), { withCredentials: true });
      source.onerror = again;
      for (const name in messages) source.addEventListener(name, guard(({ data }) => messages[name](JSON.parse(data))));
    } catch { busy = false; again(); }
  }
  pixel.on("answered", connect);
  pixel.on("identity", () => { disconnect(); clear("identity"); });
  pixel.on("consent", ({ marketing }) => { if (marketing) connect(); else { disconnect(); clear("consent"); } });
  listen(window, "online", () => { failures = 0; connect(); });
  listen(window, "pagehide", disconnect);
  listen(window, "storage", ({ key }) => key === "attimo.done" && dropWhere(({ id }) => done(id), "elsewhere"));
  listen(document, "visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(disconnect, 20000);
    else { connect(); offer(); }
  });
  let soon = 0;
  new MutationObserver(() => { soon = soon || requestAnimationFrame(guard(() => { soon = 0; offer(); })); })
    .observe(document, { childList: true, subtree: true });
  if ([...said].some((event) => OVER.test(event))) value(null);
  else if (pixel.discount()) hear(worth[0]);
  connect();
})();
