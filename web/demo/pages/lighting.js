/* A landing page for emails about lamps; its slot is filled for each visitor. */
import { card, element, renderPage, products, trackListViewed } from "../shop.js";

renderPage((main) => {
  const lamps = products.filter((one) => one.category === "Light");
  main.append(
    element(
      "div",
      { class: "hero" },
      element("h1", {}, "Light for long evenings"),
      element("div", { id: "for-you" }, element("p", {}, "Lamps and candles that are kind to the eyes.")),
    ),
    element("div", { class: "grid" }, lamps.map(card)),
  );
  trackListViewed("lighting", "Light", lamps);
});
