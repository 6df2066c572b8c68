import { $, empty, make, money, open, picture, spec, tell, write } from "../house.js";
import { cart, inCart, lines, onDiscount, put, sayApplied, totals, worth } from "../basket.js";
import { sumsOf } from "../sums.js";

function row({ product, quantity }, id) {
  const change = (by) => {
    const before = cart().lines[product.id] || 0;
    put(product, by);
    const removed = before - (cart().lines[product.id] || 0);
    tell(
      "track",
      removed > 0 ? "Product Removed" : "Product Added",
      spec(product, { cart_id: id, quantity: Math.abs(removed) }),
    );
    draw();
  };
  return make(
    "li",
    {},
    make("img", { src: picture(product), alt: "", width: 88, height: 88 }),
    make(
      "div",
      { class: "what" },
      make("a", { href: "product.html?id=" + product.id }, product.name),
      make("span", { class: "note" }, money(product.price)),
    ),
    make(
      "div",
      { class: "quantity" },
      make("button", { "aria-label": `One ${product.name} less`, onclick: () => change(-1) }, "-"),
      make("span", {}, String(quantity)),
      make("button", { "aria-label": `One ${product.name} more`, onclick: () => change(1) }, "+"),
      make("button", { class: "link", onclick: () => change(-quantity) }, "Remove"),
    ),
  );
}

function couponForm(now, sums) {
  const code = make("input", {
    name: "code",
    value: now.coupon,
    placeholder: "A code, such as STAY10",
    "aria-label": "Coupon code",
    autocomplete: "off",
  });
  const missing = now.coupon && !sums.applied && sums.goods < sums.from;
  const enter = (event) => {
    event.preventDefault();
    const entered = code.value.trim().toUpperCase().slice(0, 40), good = worth(entered);
    if (good) write("cart", { ...cart(), coupon: entered, said: "" });
    else {
      tell("track", "Coupon Denied", { cart_id: now.id, coupon_id: entered, reason: "unknown code" });
      write("cart", { ...cart(), coupon: "" });
    }
    draw();
    if (!good) $(".said").textContent = "We do not know this code.";
  };
  return make(
    "form",
    { class: "coupon", onsubmit: enter },
    code,
    make("button", { class: "button quiet" }, "Apply"),
    make("p", { class: "said", role: "status" }, missing && `${now.coupon} counts from ${money(sums.from)}.`),
  );
}

function draw() {
  sayApplied();
  const now = cart(), sums = totals(now), main = $("#main");
  main.replaceChildren(make("h1", {}, "Your cart"));
  if (!lines(now).length) return main.append(empty("Nothing in it yet.", "Look around"));
  main.append(
    make(
      "div",
      { class: "columns" },
      make("div", {}, make("ul", { class: "lines" }, lines(now).map((one) => row(one, now.id))), couponForm(now, sums)),
      make("aside", { class: "sums" }, sumsOf(sums), make("a", { class: "button", href: "checkout.html" }, "Check out")),
    ),
  );
}

open(() => {
  const now = cart();
  write("cart", now);
  tell("track", "Cart Viewed", { cart_id: now.id, currency: "EUR", value: totals(now).subtotal, products: inCart() });
  onDiscount(draw);
  draw();
});
