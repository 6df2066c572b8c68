/* A landing page, for letters about lamps: its first place is filled for the one who comes. */
import { card, make, open, products, told } from "../house.js";

open((main) => {
  const lamps = products.filter((one) => one.category === "Light");
  main.append(
    make(
      "div",
      { class: "hero" },
      make("h1", {}, "Light for long evenings"),
      make("div", { id: "for-you" }, make("p", {}, "Lamps and candles that are kind to the eyes.")),
    ),
    make("div", { class: "grid" }, lamps.map(card)),
  );
  told("lighting", "Light", lamps);
});
