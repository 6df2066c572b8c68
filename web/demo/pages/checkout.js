import { emptyState, element, money, renderPage, attimo, write } from "../shop.js";
import { cart, inCart, lines, onDiscount, trackCouponApplied, totals } from "../cart.js";
import { totalsList } from "../totals.js";

const order_id = "L" + Date.now().toString(36).toUpperCase();

/* The order as the Segment spec defines it, with `discount` and `coupon`. */
function order() {
  const sums = totals();
  return {
    order_id,
    currency: "EUR",
    value: sums.subtotal,
    revenue: sums.subtotal,
    subtotal: sums.subtotal,
    shipping: sums.shipping,
    discount: sums.discount,
    total: sums.total,
    ...(sums.applied && { coupon: sums.applied }),
    products: inCart(),
  };
}

function draw(main) {
  trackCouponApplied();
  const sums = totals();
  const field = (label, name, more) => element("label", {}, label, element("input", { name, required: true, ...more }));
  const buy = (event) => {
    event.preventDefault();
    write("order", order());
    write("cart", null);
    location.href = "order.html";
  };
  main.replaceChildren(
    element("h1", {}, "Check out"),
    element(
      "div",
      { class: "columns" },
      element(
        "form",
        { class: "fields", onsubmit: buy },
        field("Name", "name", { value: "Ada Example", autocomplete: "name" }),
        field("Street and town", "address", { value: "1 Quiet Lane, Lumeville", autocomplete: "street-address" }),
        element("p", { class: "note" }, "This is a demo: what you type stays in this form, and no payment is taken."),
        element("button", { class: "button", id: "buy" }, `Buy for ${money(sums.total)}`),
      ),
      element("aside", { class: "totals" }, totalsList(sums)),
    ),
  );
}

renderPage((main) => {
  if (!lines(cart()).length) {
    return main.append(element("h1", {}, "Check out"), emptyState("Your cart is empty.", "Browse products"));
  }
  attimo("track", "Checkout Started", order());
  onDiscount(() => draw(main));
  draw(main);
});
