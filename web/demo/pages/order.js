import { empty, make, money, open, read } from "../house.js";

open((main) => {
  const done = read("order", null);
  if (!done) return main.append(empty("There is no order yet.", "Back to the shop"));
  // The pixel says "Order Completed" for this, once, however often the page is loaded.
  main.append(
    make(
      "div",
      { class: "thanks", "data-attimo-order": JSON.stringify(done) },
      make("h1", {}, "Thank you"),
      make("p", {}, `Your order ${done.order_id} over ${money(done.total)} is on its way, in spirit.`),
      make("a", { class: "button", href: "./" }, "Back to the shop"),
    ),
  );
});
