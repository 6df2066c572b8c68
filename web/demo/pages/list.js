import { card, element, renderPage, products, query, attimo, trackListViewed } from "../shop.js";

renderPage((main) => {
  const category = query.get("category") || "", words = (query.get("q") || "").trim().slice(0, 80);
  const matches = (product) =>
    (!category || product.category === category) &&
    words
      .toLowerCase()
      .split(/\s+/)
      .every((word) => (product.name + " " + product.text + " " + product.category).toLowerCase().includes(word));
  const found = products.filter(matches);
  const link = (name) =>
    element(
      "a",
      { href: name ? "?category=" + name : "./", "aria-current": name === category && "page" },
      name || "Everything",
    );
  main.append(
    element(
      "div",
      { class: "hero" },
      element("h1", {}, "Things for slow evenings"),
      // A campaign may fill this slot (format "slot", slot "#for-you"); others see the default content.
      element(
        "div",
        { id: "for-you" },
        element(
          "p",
          {},
          "Twelve objects, chosen with care. Move the pointer out of the window when you have seen enough.",
        ),
      ),
    ),
    element(
      "div",
      { class: "tools" },
      element(
        "nav",
        { class: "categories", "aria-label": "Categories" },
        ["", ...new Set(products.map((one) => one.category))].map(link),
      ),
      element(
        "form",
        { role: "search" },
        element("input", { type: "search", name: "q", value: words, placeholder: "Search", "aria-label": "Search" }),
      ),
    ),
    found.length
      ? element("div", { class: "grid" }, found.map(card))
      : element("p", { class: "empty" }, "Nothing here by that name."),
  );
  if (words) attimo("track", "Products Searched", { query: words });
  else trackListViewed(category || "all", category, found);
});
