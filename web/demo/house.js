/* The demo shop: what every page has. What it tells attimo stands in `tell(...)` lines and in data-attimo-* attributes,
   as it would in a real shop. It runs before the pixel: calls wait in an array until then. */
window.attimo = window.attimo || [];
export const tell = (...call) => window.attimo.push(call);
export const products = window.PRODUCTS;
export const byId = (id) => products.find((one) => one.id === id);
export const money = (amount) => new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" }).format(amount);
export const round = (amount) => Math.round(amount * 100) / 100;
export const $ = (selector) => document.querySelector(selector);
export const query = new URLSearchParams(location.search);

export const read = (key, otherwise) => {
  try {
    return JSON.parse(localStorage.getItem("shop." + key)) || otherwise;
  } catch {
    return otherwise;
  }
};
export const write = (key, value) => {
  try {
    localStorage.setItem("shop." + key, JSON.stringify(value));
  } catch {
    /* a shop without memory */
  }
};

export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((one) => one != null && one !== false));
  return element;
}

export const empty = (said, link) => make("p", { class: "empty" }, said + " ", make("a", { href: "./" }, link));

/* A product as the Segment spec describes it. */
export const spec = (product, more) => ({
  product_id: product.id,
  sku: product.id,
  name: product.name,
  category: product.category,
  brand: "Casa Lume",
  price: product.price,
  currency: "EUR",
  url: new URL("product.html?id=" + product.id, location.href).href,
  image_url: picture(product),
  ...more,
});
export const picture = (product) => new URL(`img/${product.id}.svg`, location.href).href;

export function card(product) {
  return make(
    "a",
    { class: "card", href: "product.html?id=" + product.id },
    make("img", { src: picture(product), alt: "", width: 320, height: 320, loading: "lazy" }),
    make("span", { class: "name" }, product.name),
    make("span", { class: "price" }, money(product.price)),
  );
}

export const told = (list_id, category, found) =>
  tell("track", "Product List Viewed", { list_id, category, products: found.map((one) => ({ product_id: one.id })) });

/* Draw a page: the frame around it, the page itself, and the question about consent. */
export function open(page) {
  tell("config", { country: read("country", "") });
  frame();
  page($("#main"));
  choose();
}

function frame() {
  const who = read("user", null);
  $("#header").append(
    make(
      "a",
      { class: "brand", href: "./" },
      make("img", { src: "img/icon.svg", alt: "", width: 32, height: 32 }),
      "Casa Lume",
    ),
    make(
      "nav",
      { "aria-label": "Shop" },
      make("a", { href: "./" }, "Shop"),
      make("a", { href: "cart.html" }, "Cart", make("span", { id: "count" })),
      who
        ? make("button", { class: "link", onclick: signOut }, `Sign out ${who.user_id}`)
        : make("a", { href: "login.html" }, "Sign in"),
      make("a", { href: "/live", class: "live" }, "See it live"),
    ),
  );
  const canada = make("input", {
    type: "checkbox",
    id: "canada",
    onchange: (event) => {
      write("country", event.target.checked ? "CA" : "");
      location.reload();
    },
  });
  canada.checked = read("country", "") === "CA";
  $("#footer").append(
    make("p", {}, "A demo: nothing here is for sale, and nothing leaves this machine."),
    make("label", { for: "canada" }, canada, " Pretend to be in Canada"),
    make("button", { class: "link", id: "privacy", onclick: () => choose(true) }, "Privacy choices"),
  );
  count();
}

/* How many pieces are in the cart, in the header. */
export function count() {
  const pieces = Object.values(read("cart", { lines: {} }).lines).reduce((sum, quantity) => sum + quantity, 0);
  $("#count").textContent = pieces ? ` (${pieces})` : "";
}

function signOut() {
  tell("reset");
  write("user", null);
  location.href = "./";
}

/* The consent banner: three answers, equally large, none of them chosen for you. */
function choose(again) {
  if (read("consent", null) && !again) return;
  if ($("#consent")) return;
  const answer = (label, id, analytics, marketing) =>
    make(
      "button",
      {
        class: "button quiet",
        id,
        onclick: () => {
          write("consent", { analytics, marketing });
          tell("consent", { analytics, marketing });
          $("#consent").remove();
        },
      },
      label,
    );
  document.body.append(
    make(
      "section",
      { id: "consent", "aria-label": "Privacy choices" },
      make(
        "p",
        {},
        "May we remember what you look at? ",
        make("span", {}, "Until you choose, this shop tells attimo nothing, and no offer will appear."),
      ),
      make(
        "div",
        { class: "choices" },
        answer("Allow", "consent-allow", true, true),
        answer("Statistics only", "consent-statistics", true, false),
        answer("No", "consent-decline", false, false),
      ),
    ),
  );
}
