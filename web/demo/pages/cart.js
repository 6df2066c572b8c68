import { $, emptyState, element, money, renderPage, imageUrl, segmentProduct, attimo, write } from "../shop.js";
import { cart, inCart, lines, onDiscount, changeQuantity, trackCouponApplied, totals, discountFor } from "../cart.js";
import { totalsList } from "../totals.js";

function row({ product, quantity }, id) {
  const change = (by) => {
    const before = cart().lines[product.id] || 0;
    changeQuantity(product, by);
    const removed = before - (cart().lines[product.id] || 0);
    attimo(
      "track",
      removed > 0 ? "Product Removed" : "Product Added",
      segmentProduct(product, { cart_id: id, quantity: Math.abs(removed) }),
    );
    draw();
  };
  return element(
    "li",
    {},
    element("img", { src: imageUrl(product), alt: "", width: 88, height: 88 }),
    element(
      "div",
      { class: "item" },
      element("a", { href: "product.html?id=" + product.id }, product.name),
      element("span", { class: "note" }, money(product.price)),
    ),
    element(
      "div",
      { class: "quantity" },
      element("button", { "aria-label": `Remove one ${product.name}`, onclick: () => change(-1) }, "-"),
      element("span", {}, String(quantity)),
      element("button", { "aria-label": `Add one ${product.name}`, onclick: () => change(1) }, "+"),
      element("button", { class: "link", onclick: () => change(-quantity) }, "Remove"),
    ),
  );
}

function couponForm(now, sums) {
  const code = element("input", {
    name: "code",
    value: now.coupon,
    placeholder: "A code, such as STAY10",
    "aria-label": "Coupon code",
    autocomplete: "off",
  });
  const missing = now.coupon && !sums.applied && sums.itemsTotal < sums.minValue;
  const enter = (event) => {
    event.preventDefault();
    const entered = code.value.trim().toUpperCase().slice(0, 40), discount = discountFor(entered);
    if (discount) write("cart", { ...cart(), coupon: entered, reportedCoupon: "" });
    else {
      attimo("track", "Coupon Denied", { cart_id: now.id, coupon_id: entered, reason: "unknown code" });
      write("cart", { ...cart(), coupon: "" });
    }
    draw();
    if (!discount) $(".status").textContent = "Unknown coupon code.";
  };
  return element(
    "form",
    { class: "coupon", onsubmit: enter },
    code,
    element("button", { class: "button secondary" }, "Apply"),
    element("p", { class: "status", role: "status" }, missing && `${now.coupon} applies to orders of at least ${money(sums.minValue)}.`),
  );
}

function draw() {
  trackCouponApplied();
  const now = cart(), sums = totals(now), main = $("#main");
  main.replaceChildren(element("h1", {}, "Your cart"));
  if (!lines(now).length) return main.append(emptyState("Your cart is empty.", "Browse products"));
  main.append(
    element(
      "div",
      { class: "columns" },
      element("div", {}, element("ul", { class: "lines" }, lines(now).map((one) => row(one, now.id))), couponForm(now, sums)),
      element("aside", { class: "totals" }, totalsList(sums), element("a", { class: "button", href: "checkout.html" }, "Check out")),
    ),
  );
}

renderPage(() => {
  const now = cart();
  write("cart", now);
  attimo("track", "Cart Viewed", { cart_id: now.id, currency: "EUR", value: totals(now).subtotal, products: inCart() });
  onDiscount(draw);
  draw();
});
