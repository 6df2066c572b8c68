import { emptyState, element, money, renderPage, read } from "../shop.js";

renderPage((main) => {
  const order = read("order", null);
  if (!order) return main.append(emptyState("There is no order yet.", "Back to the shop"));
  // The pixel sends "Order Completed" for this once, even if the page is reloaded.
  main.append(
    element(
      "div",
      { class: "thanks", "data-attimo-order": JSON.stringify(order) },
      element("h1", {}, "Thank you"),
      element("p", {}, `Your order ${order.order_id} over ${money(order.total)} is on its way, in spirit.`),
      element("a", { class: "button", href: "./" }, "Back to the shop"),
    ),
  );
});
