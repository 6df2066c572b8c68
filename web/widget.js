/* attimo widget: shows offers to a visitor. Documentation: docs/actions.md */
(() => {
  "use strict";
  const pixel = window.attimo;
  if (!pixel || !pixel._ || pixel.widget) return;
  pixel.widget = true;
  const { config, consentState, rebind, isWithin, read, write, post, backoff, tryOr, guarded, addListener, sentEvents, acknowledgedId } = pixel._;
  const labels = config.labels || ["Close", "No, thanks", "Copy", "Copied"];
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
.image{width:calc(100% + 3.5em);margin:-1.75em -1.75em .5em;max-height:12em;object-fit:cover}
h2{font-size:1.4em;line-height:1.25;padding-right:1.5em}
.text *{max-width:100%}.text a{color:inherit}
.coupon,.actions{display:flex;flex-wrap:wrap;gap:8px;align-items:center}
.coupon{border:1px dashed;border-radius:8px;padding-left:1em}
code{flex:1;font:600 1.05em monospace}
button,.primary{flex:1 1 9em;min-height:44px;padding:9px 14px;font:inherit;font-weight:600;text-align:center;
  text-decoration:none;color:inherit;background:none;border:1px solid;border-radius:8px;cursor:pointer}
.primary,.bar{color:var(--attimo-on-accent,#fff);background:var(--attimo-accent,#22302b)}
.copy{flex:none;border:0;text-decoration:underline}
.close{position:absolute;top:8px;right:8px;width:44px;padding:0;border:0;border-radius:50%;font-size:24px;
  line-height:1;background:inherit}
:focus-visible{outline:3px solid #4a90d9;outline-offset:2px}
.bar .card{min-height:52px;display:flex;flex-wrap:wrap;align-items:center;justify-content:center;gap:4px 16px;padding:8px 60px 8px 16px}
.bar .close{top:calc(50% - 22px)}.bar h2{font-size:1em;padding:0}.bar .image{display:none}
@media(prefers-reduced-motion:no-preference){.popup,.banner{animation:slide-in .2s ease-out}
  @keyframes slide-in{from{transform:translateY(12px)}}}`;

  const offers = new Map(); // campaign -> entry that is preloaded or waits
  const visible = new Map(); // placement -> entry that is on the page
  // Each format has one placement; that of a slot is the element itself, if it exists.
  const placementOf = ({ format, slot }) => (format === "slot" ? tryOr(() => document.body.querySelector(slot)) : format);
  const readList = (key) => tryOr(() => JSON.parse(read(key)), 0) || [];
  const appendList = (key, value) => write(key, JSON.stringify([...readList(key), value].slice(-200)));
  const claimedIds = [];
  const isClaimed = (id) => claimedIds.includes(id) || readList("claimed").includes(id);
  const emit = (name, { id, campaign, format }, reason) => document.dispatchEvent(new CustomEvent("attimo:" + name, {
    detail: { action_id: id, campaign, format, reason },
  }));
  const track = (event, { id, campaign }) => pixel.track(event, { action_id: id, campaign });
  function reportShown(entry) { // once, also before a click or a dismissal
    if (!entry.reported) track("Offer Shown", entry.action);
    entry.reported = true;
  }

  function sessionStart() {
    const [start, last] = readList("session"), started = isWithin(last, 1800e3) ? start : Date.now(); // half an hour
    if (consentState().analytics) write("session", JSON.stringify([started, Date.now()]));
    return started;
  }
  const ENDS_OFFERS = /^(Order Completed|Signed Out)$/;
  // [terms, valid until] of the last coupon shown; pages get its terms until it expires.
  let discount = tryOr(() => JSON.parse(sessionStorage.getItem("attimo.discount"))) || [];
  pixel.discount = () => (consentState().marketing && discount[1] > Date.now() ? discount[0] : null);
  const notify = (detail) => document.dispatchEvent(new CustomEvent("attimo:discount", { detail }));
  function setDiscount(terms, validUntil) {
    discount = [terms, validUntil];
    tryOr(() => sessionStorage[terms ? "setItem" : "removeItem"]("attimo.discount", JSON.stringify(discount)));
    notify(terms);
  }
  const isDismissed = (campaign) => readList("dismissed").some(([name, when]) => name === campaign && when === sessionStart());

  // The server sanitizes HTML; the widget rebuilds it from allowed tags only.
  const ALLOWED_TAGS = /^(A|P|BR|B|STRONG|I|EM|U|S|SMALL|SPAN|DIV|UL|OL|LI|H[1-6]|IMG|HR|TABLE|T(HEAD|BODY|R|H|D))$/;
  const safeUrl = (url) => tryOr(() => {
    const { protocol, href } = new URL(url, location.href);
    return !!url && /^https?:$/.test(protocol) && href;
  });
  function element(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const name in attributes) { // keep an empty alt: it marks a decorative image
      if (attributes[name] || attributes[name] === "") node.setAttribute(name, attributes[name]);
    }
    node.append(...children.filter(Boolean));
    return node;
  }
  function clean(from, to) {
    for (const node of from.childNodes) {
      const tag = node.nodeName;
      if (node.nodeType === 3) to.append(node.data);
      if (node.nodeType !== 1 || /^(script|style|template|noscript|iframe)$/i.test(tag)) continue;
      const get = (name) => node.getAttribute(name);
      if (!ALLOWED_TAGS.test(tag)) clean(node, to);
      else {
        const href = tag === "A" && safeUrl(get("href")), src = tag === "IMG" && safeUrl(get("src"));
        to.append(clean(node, element(tag, { href, src, alt: get("alt") })));
      }
    }
    return to;
  }

  const styleSheet = new CSSStyleSheet(); // allowed by any CSP
  styleSheet.replaceSync(CSS);
  function render(entry) {
    const { action } = entry, { format } = action, popup = format === "popup", slot = format === "slot";
    const attr = slot ? "part" : "class"; // the shop styles slots and may use the same classes
    const text = (key) => String(action.content[key] || "");
    const title = text("title"), image = safeUrl(text("image_url")), url = safeUrl(text("url")), coupon = text("coupon");
    const button = (label, name, onclick, href) => {
      const node = element(href ? "a" : "button", { [attr]: name, href, type: !href && "button" }, label);
      node.onclick = onclick;
      return node;
    };
    const onDismiss = () => dismiss(entry), onClick = () => {
      reportShown(entry);
      track("Offer Clicked", action);
      emit("clicked", action);
      if (!slot) setTimeout(() => close(entry)); // follow the link first
    };
    const primaryButton = text("button") && button(text("button"), "primary", onClick, url);
    const closeButton = button("×", "close", onDismiss), codeElement = element("code", {}, coupon);
    const copyButton = button(labels[2], "copy", () => {
      getSelection().selectAllChildren(codeElement);
      if (navigator.clipboard) navigator.clipboard.writeText(coupon).then(() => { copyButton.textContent = labels[3]; }, () => {});
    });
    const parsed = new DOMParser().parseFromString(text("html"), "text/html").body;
    const body = clean(parsed, element("div", { [attr]: "text", id: !slot && "text" }));
    closeButton.ariaLabel = labels[0];
    copyButton.ariaLive = "polite";
    body.onclick = ({ target }) => target.closest("a[href]") && onClick();
    const parts = [
      image && element("img", { [attr]: "image", src: image, alt: "" }), title && element("h2", {}, title), body,
      coupon && element("div", { [attr]: "coupon" }, codeElement, copyButton)];
    const host = entry.host = element("attimo-offer", { "data-format": format }, ...(slot ? [...parts, primaryButton] : []));
    if (slot) return host.style.display = "contents";
    const root = host.attachShadow({ mode: config.shadow || "closed" });
    const dialog = entry.dialog = element(popup ? "dialog" : "section", {
      class: "offer " + format, tabindex: "-1", role: popup ? "dialog" : "region", "aria-modal": popup && "true",
      "aria-label": title || "Offer", "aria-describedby": "text",
    }, element("div", { class: "card" }, ...parts,
      element("div", { class: "actions" }, primaryButton,
        format !== "bar" && button(labels[primaryButton ? 1 : 0], "secondary", onDismiss)), closeButton));
    let pressed;
    dialog.onpointerdown = ({ target }) => { pressed = target; };
    dialog.onclick = ({ target }) => { if (popup && target === dialog && pressed === dialog) onDismiss(); };
    dialog.onclose = onDismiss;
    dialog.oncancel = dialog.onkeydown = (event) => {
      const focusable = [...dialog.querySelectorAll("a[href],button")], last = focusable.length - 1;
      const at = focusable.indexOf(root.activeElement), back = event.shiftKey;
      if (event.type === "cancel" || event.key === "Escape") onDismiss();
      else if (event.key === "Tab" && popup && (back ? at < 1 : at === last)) focusable[back ? last : 0].focus();
      else return;
      event.preventDefault();
    };
    root.adoptedStyleSheets = [styleSheet];
    root.append(dialog);
    document.body[format === "bar" ? "prepend" : "append"](host);
  }

  function show(entry) {
    const { action, dialog, host, expiresAt } = entry, terms = action.discount;
    const placement = entry.placement = placementOf(action);
    if (!placement) return; // removed meanwhile
    close(visible.get(placement), "replaced");
    forget(entry);
    visible.set(placement, entry);
    if (dialog) {
      entry.lastFocus = document.activeElement;
      host.setAttribute("open", "");
      if (dialog.showModal) { dialog.showModal(); dialog.focus(); }
    } else {
      entry.original = [...placement.childNodes];
      placement.replaceChildren(host);
    }
    performance.mark("attimo:shown");
    emit("shown", action);
    // Time left by the server's clock, because clocks of visitors are unreliable.
    const left = terms && expiresAt - performance.now() + (terms.expires_at || 9e15) - action.not_after;
    if (terms) setDiscount(terms, Date.now() + left);
  }
  function close(entry, reason) {
    if (!entry || visible.get(entry.placement) !== entry) return;
    const { action, dialog, host, lastFocus, original, placement } = entry;
    visible.delete(placement);
    if (dialog && dialog.close) dialog.close();
    host.replaceWith(...original);
    if (lastFocus) lastFocus.focus({ preventScroll: true });
    if (reason) emit("cancelled", action, reason);
    setTimeout(showBest);
  }
  function dismiss(entry) {
    const { action } = entry;
    if (visible.get(entry.placement) !== entry) return;
    appendList("dismissed", [action.campaign, sessionStart()]);
    close(entry);
    drop(offers.get(action.campaign), "dismissed");
    reportShown(entry);
    track("Offer Dismissed", action);
    emit("dismissed", action);
  }

  // Only one tab shows an action; it keeps the lock until the other tabs are notified.
  function claim({ id }, done) {
    const onLock = guarded((lock) => {
      const claimed = lock && !isClaimed(id);
      if (claimed) { claimedIds.push(id); appendList("claimed", id); }
      done(claimed);
      return lock && new Promise((release) => setTimeout(release, 5000));
    });
    if (navigator.locks) navigator.locks.request("attimo." + id, { ifAvailable: true }, onLock);
    else onLock(true); // plain http
  }

  const priorityOf = ({ action }) => +action.priority || 0;
  // Show the best offer per placement for this trigger; without a trigger, the waiting sends.
  function showBest(trigger) {
    visible.forEach((entry) => entry.host.isConnected || close(entry)); // the page was redrawn
    if (document.hidden || !consentState().marketing) return;
    const isReady = ({ action, expiresAt, claimed }) => !claimed && action.trigger === trigger
      && expiresAt > performance.now() && !isClaimed(action.id) && !isDismissed(action.campaign);
    const order = (a, b) => priorityOf(a) - priorityOf(b) || a.action.at - b.action.at; // the last one wins
    const ready = [...offers.values()].filter(isReady).sort(order).map((entry) => [placementOf(entry.action), entry]);
    new Map(ready).forEach((best, placement) => {
      const current = visible.get(placement);
      // A slot cannot be dismissed, so a newer offer of equal priority replaces it.
      if (!placement || (current && priorityOf(current) >= priorityOf(best) + !best.dialog)) return;
      best.claimed = true;
      if (trigger) show(best); // in this frame; closed again if another tab has claimed it
      claim(best.action, (claimed) => {
        if (!claimed) return trigger ? close(best, "other_tab") : drop(best, "other_tab");
        if (!trigger && offers.get(best.action.campaign) === best) show(best);
        requestAnimationFrame(() => best.placement && best.host.isConnected && reportShown(best));
      });
    });
  }

  function receive(action) {
    const { id, campaign, format, type, expires_in_ms: left } = action, previous = offers.get(campaign);
    if (!id || !campaign || !/^(popup|banner|bar|slot)$/.test(format) || !/^(preload|send)$/.test(type)) return;
    if (previous && previous.action.id === id) return;
    drop(previous, "replaced");
    if (!(left > 0) || isClaimed(id) || isDismissed(campaign) || offers.size > 49) return;
    const trigger = type === "preload" ? action.trigger || "exit_intent" : undefined; // the default is not sent
    const entry = { action: { content: {}, ...action, trigger }, original: [], expiresAt: performance.now() + left };
    render(entry);
    entry.timer = setTimeout(drop, Math.min(left, 2147483647), entry, "expired");
    offers.set(campaign, entry);
    emit("preloaded", action);
    if (type === "send") showBest();
  }
  function forget(entry) {
    clearTimeout(entry.timer);
    if (offers.get(entry.action.campaign) === entry) offers.delete(entry.action.campaign);
  }
  function drop(entry, reason) {
    if (!entry || visible.get(entry.placement) === entry) return;
    forget(entry);
    entry.host.remove();
    emit("cancelled", entry.action, reason);
  }
  const dropWhere = (test, reason) => offers.forEach((entry) => test(entry.action) && drop(entry, reason));
  function cancelWhere(test, reason) { // also slots that are visible
    dropWhere(test, reason);
    visible.forEach((entry) => entry.dialog || (test(entry.action) && close(entry, reason)));
  }
  function clearAll(reason) {
    dropWhere(() => true, reason);
    visible.forEach((entry) => close(entry, reason));
    if (discount[0]) setDiscount(null);
  }
  pixel.on("*", ({ type, event = { page: "Page Viewed", identify: "Identified" }[type] }) => {
    sessionStart();
    if (ENDS_OFFERS.test(event)) clearAll(event);
    cancelWhere(({ cancel_on }) => cancel_on && cancel_on.includes(event), event);
  });
  document.addEventListener("attimo:exit-intent", guarded((event) => {
    showBest("exit_intent");
    if ([...visible.values()].some((entry) => entry.dialog)) event.preventDefault(); // not for slots
  }));

  let eventSource = null, connecting = false, failures = 0, retryTimer = 0, hideTimer = 0;
  const handlers = {
    snapshot(list) {
      failures = 0;
      dropWhere(({ campaign }) => !list.some((action) => action.campaign === campaign), "cancelled");
      list.forEach(receive);
    },
    preload: receive,
    send: receive,
    cancel: ({ campaign }) => cancelWhere((action) => action.campaign === campaign, "cancelled"),
  };
  function disconnect() {
    clearTimeout(retryTimer);
    if (eventSource) eventSource.close();
    eventSource = null;
  }
  function reconnect() {
    disconnect();
    retryTimer = setTimeout(connect, backoff(++failures));
  }
  async function connect() {
    const anonymousId = acknowledgedId();
    // Connect only after the server acknowledged a call. Hidden tabs stay disconnected: browsers limit connections.
    if (!anonymousId || anonymousId !== pixel.anonymousId() || !consentState().marketing || document.hidden
      || eventSource || connecting) return;
    clearTimeout(retryTimer);
    connecting = true;
    try {
      const response = await post("/v1/stream/token", JSON.stringify({ anonymousId }));
      const { token, code } = await response.json();
      connecting = false;
      if (code === "not_bound" && rebind()) return;
      if (!response.ok || anonymousId !== pixel.anonymousId()) return reconnect();
      eventSource = new EventSource(config.host + "/v1/stream?token=" + encodeURIComponent(token), { withCredentials: true });
      eventSource.onerror = reconnect;
      for (const name in handlers) {
        eventSource.addEventListener(name, guarded(({ data }) => handlers[name](JSON.parse(data))));
      }
    } catch { connecting = false; reconnect(); }
  }
  pixel.on("acknowledged", connect);
  pixel.on("identity", () => { disconnect(); clearAll("identity"); });
  pixel.on("consent", ({ marketing }) => { if (marketing) connect(); else { disconnect(); clearAll("consent"); } });
  addListener(window, "online", () => { failures = 0; connect(); });
  addListener(window, "pagehide", disconnect);
  addListener(window, "storage", ({ key }) => key === "attimo.claimed" && dropWhere(({ id }) => isClaimed(id), "other_tab"));
  addListener(document, "visibilitychange", () => {
    clearTimeout(hideTimer);
    if (document.hidden) hideTimer = setTimeout(disconnect, 20000);
    else { connect(); showBest(); }
  });
  let frame = 0;
  new MutationObserver(() => {
    frame = frame || requestAnimationFrame(guarded(() => { frame = 0; showBest(); }));
  })
    .observe(document, { childList: true, subtree: true });
  if ([...sentEvents].some((event) => ENDS_OFFERS.test(event))) setDiscount(null);
  else if (pixel.discount()) notify(discount[0]);
  connect();
})();
