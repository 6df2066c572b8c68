import { card, make, open, products, query, tell, told } from "../house.js";

open((main) => {
  const category = query.get("category") || "", words = (query.get("q") || "").trim().slice(0, 80);
  const matches = (product) =>
    (!category || product.category === category) &&
    words
      .toLowerCase()
      .split(/\s+/)
      .every((word) => (product.name + " " + product.text + " " + product.category).toLowerCase().includes(word));
  const found = products.filter(matches);
  const link = (name) =>
    make(
      "a",
      { href: name ? "?category=" + name : "./", "aria-current": name === category && "page" },
      name || "Everything",
    );
  main.append(
    make(
      "div",
      { class: "hero" },
      make("h1", {}, "Things for slow evenings"),
      // A campaign may fill this for one person (format "slot", slot "#for-you"); others read what stands here.
      make(
        "div",
        { id: "for-you" },
        make(
          "p",
          {},
          "Twelve objects, chosen with care. Move the pointer out of the window when you have seen enough.",
        ),
      ),
    ),
    make(
      "div",
      { class: "tools" },
      make(
        "nav",
        { class: "categories", "aria-label": "Categories" },
        ["", ...new Set(products.map((one) => one.category))].map(link),
      ),
      make(
        "form",
        { role: "search" },
        make("input", { type: "search", name: "q", value: words, placeholder: "Search", "aria-label": "Search" }),
      ),
    ),
    found.length
      ? make("div", { class: "grid" }, found.map(card))
      : make("p", { class: "empty" }, "Nothing here by that name."),
  );
  if (words) tell("track", "Products Searched", { query: words });
  else told(category || "all", category, found);
});
