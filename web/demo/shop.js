/* The demo shop: shared parts of all pages. Calls to attimo are `attimo(...)` lines and data-attimo-* attributes, as in a
   real shop. The script runs before the pixel, so calls are queued in an array. */
window.attimo = window.attimo || [];
export const attimo = (...call) => window.attimo.push(call);
export const products = window.PRODUCTS;
export const productById = (id) => products.find((one) => one.id === id);
export const money = (amount) => new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" }).format(amount);
export const round = (amount) => Math.round(amount * 100) / 100;
export const $ = (selector) => document.querySelector(selector);
export const query = new URLSearchParams(location.search);

export const read = (key, fallback) => {
  try {
    return JSON.parse(localStorage.getItem("shop." + key)) || fallback;
  } catch {
    return fallback;
  }
};
export const write = (key, value) => {
  try {
    localStorage.setItem("shop." + key, JSON.stringify(value));
  } catch {
    /* storage is not available */
  }
};

export function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export const emptyState = (text, link) => element("p", { class: "empty" }, text + " ", element("a", { href: "./" }, link));

/* A product as the Segment spec describes it. */
export const segmentProduct = (product, more) => ({
  product_id: product.id,
  sku: product.id,
  name: product.name,
  category: product.category,
  brand: "Casa Lume",
  price: product.price,
  currency: "EUR",
  url: new URL("product.html?id=" + product.id, location.href).href,
  image_url: imageUrl(product),
  ...more,
});
export const imageUrl = (product) => new URL(`img/${product.id}.svg`, location.href).href;

export function card(product) {
  return element(
    "a",
    { class: "card", href: "product.html?id=" + product.id },
    element("img", { src: imageUrl(product), alt: "", width: 320, height: 320, loading: "lazy" }),
    element("span", { class: "name" }, product.name),
    element("span", { class: "price" }, money(product.price)),
  );
}

export const trackListViewed = (list_id, category, found) =>
  attimo("track", "Product List Viewed", { list_id, category, products: found.map((one) => ({ product_id: one.id })) });

/* Render a page: header and footer, content, and the consent banner. */
export function renderPage(page) {
  attimo("config", { country: read("country", "") });
  renderFrame();
  page($("#main"));
  showConsentBanner();
}

function renderFrame() {
  const user = read("user", null);
  $("#header").append(
    element(
      "a",
      { class: "brand", href: "./" },
      element("img", { src: "img/icon.svg", alt: "", width: 32, height: 32 }),
      "Casa Lume",
    ),
    element(
      "nav",
      { "aria-label": "Shop" },
      element("a", { href: "./" }, "Shop"),
      element("a", { href: "cart.html" }, "Cart", element("span", { id: "cart-count" })),
      user
        ? element("button", { class: "link", onclick: signOut }, `Sign out ${user.user_id}`)
        : element("a", { href: "login.html" }, "Sign in"),
      element("a", { href: "/live", class: "live" }, "Live view"),
    ),
  );
  const canada = element("input", {
    type: "checkbox",
    id: "canada",
    onchange: (event) => {
      write("country", event.target.checked ? "CA" : "");
      location.reload();
    },
  });
  canada.checked = read("country", "") === "CA";
  $("#footer").append(
    element("p", {}, "A demo: nothing here is for sale, and nothing leaves this machine."),
    element("label", { for: "canada" }, canada, " Pretend to be in Canada"),
    element("button", { class: "link", id: "privacy", onclick: () => showConsentBanner(true) }, "Privacy choices"),
  );
  updateCartCount();
}

/* Show the number of items in the header. */
export function updateCartCount() {
  const items = Object.values(read("cart", { lines: {} }).lines).reduce((sum, quantity) => sum + quantity, 0);
  $("#cart-count").textContent = items ? ` (${items})` : "";
}

function signOut() {
  attimo("reset");
  write("user", null);
  location.href = "./";
}

/* The consent banner: three equal buttons, none preselected. */
function showConsentBanner(again) {
  if (read("consent", null) && !again) return;
  if ($("#consent")) return;
  const answer = (label, id, analytics, marketing) =>
    element(
      "button",
      {
        class: "button secondary",
        id,
        onclick: () => {
          write("consent", { analytics, marketing });
          attimo("consent", { analytics, marketing });
          $("#consent").remove();
        },
      },
      label,
    );
  document.body.append(
    element(
      "section",
      { id: "consent", "aria-label": "Privacy choices" },
      element(
        "p",
        {},
        "May we remember what you look at? ",
        element("span", {}, "Until you choose, this shop sends nothing to attimo and shows no offers."),
      ),
      element(
        "div",
        { class: "choices" },
        answer("Allow", "consent-allow", true, true),
        answer("Statistics only", "consent-statistics", true, false),
        answer("No", "consent-decline", false, false),
      ),
    ),
  );
}
