import { empty, make, money, open, tell, write } from "../house.js";
import { cart, inCart, lines, onDiscount, sayApplied, totals } from "../basket.js";
import { sumsOf } from "../sums.js";

const order_id = "L" + Date.now().toString(36).toUpperCase();

/* What is bought, in the words of the Segment spec: `discount` and `coupon` say what was taken off, and why. */
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
  sayApplied();
  const sums = totals();
  const field = (label, name, more) => make("label", {}, label, make("input", { name, required: true, ...more }));
  const buy = (event) => {
    event.preventDefault();
    write("order", order());
    write("cart", null);
    location.href = "order.html";
  };
  main.replaceChildren(
    make("h1", {}, "Check out"),
    make(
      "div",
      { class: "columns" },
      make(
        "form",
        { class: "fields", onsubmit: buy },
        field("Name", "name", { value: "Ada Example", autocomplete: "name" }),
        field("Street and town", "address", { value: "1 Quiet Lane, Lumeville", autocomplete: "street-address" }),
        make("p", { class: "note" }, "This is a demo: what you type stays in this form, and no payment is taken."),
        make("button", { class: "button", id: "buy" }, `Buy for ${money(sums.total)}`),
      ),
      make("aside", { class: "sums" }, sumsOf(sums)),
    ),
  );
}

open((main) => {
  if (!lines(cart()).length) {
    return main.append(make("h1", {}, "Check out"), empty("Your cart is empty.", "Look around"));
  }
  tell("track", "Checkout Started", order());
  onDiscount(() => draw(main));
  draw(main);
});
