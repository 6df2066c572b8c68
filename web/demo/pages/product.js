import { byId, card, empty, make, money, open, picture, products, query, round, spec } from "../house.js";
import { cart, off, onDiscount, put } from "../basket.js";

/* The price; with a coupon that attimo has told of, the old one and the new one. */
function price(product, discount) {
  const normal = money(product.price), one = [{ product, quantity: 1 }];
  const less = discount ? off(discount, one) : 0;
  if (less) {
    return [
      make("s", {}, make("span", { class: "unseen" }, "Instead of "), normal),
      " ",
      make("strong", {}, money(round(product.price - less))),
      make("span", { class: "note with" }, ` with coupon ${discount.code}`),
    ];
  }
  const later = discount && discount.from > product.price && off({ ...discount, from: 0 }, one);
  const how = later && (discount.percent ? `${discount.percent} %` : money(discount.amount));
  if (!later) return [normal];
  const words = ` ${how} less from ${money(discount.from)}, with coupon ${discount.code}`;
  return [normal, make("span", { class: "note with" }, words)];
}

open((main) => {
  const shown = byId(query.get("id"));
  if (!shown) return main.append(empty("There is no such product.", "Back to the shop"));
  document.title = `${shown.name} - Casa Lume`;
  // The pixel reads the product view from this, as search engines do.
  const schema = make("script", { type: "application/ld+json" });
  schema.textContent = JSON.stringify({
    "@context": "https://schema.org",
    "@type": "Product",
    sku: shown.id,
    name: shown.name,
    category: shown.category,
    description: shown.text,
    brand: { "@type": "Brand", name: "Casa Lume" },
    image: picture(shown),
    url: location.href,
    offers: {
      "@type": "Offer",
      price: shown.price.toFixed(2),
      priceCurrency: "EUR",
      availability: "https://schema.org/InStock",
    },
  });
  document.head.append(schema);
  const said = make("p", { class: "said", role: "status" });
  // The pixel says "Product Added" when this is clicked.
  const add = make(
    "button",
    {
      class: "button",
      id: "add",
      "data-attimo-add": JSON.stringify(spec(shown, { cart_id: cart().id })),
      onclick: () => {
        put(shown, 1);
        said.replaceChildren("In your cart. ", make("a", { href: "cart.html" }, "Go to the cart"));
      },
    },
    "Add to cart",
  );
  const tag = make("p", { class: "price" }, price(shown));
  onDiscount((discount) => tag.replaceChildren(...price(shown, discount)));
  const others = products.filter((one) => one.category === shown.category && one !== shown).slice(0, 3);
  main.append(
    make(
      "article",
      { class: "product" },
      make("img", { src: picture(shown), alt: shown.name, width: 560, height: 560 }),
      make(
        "div",
        {},
        make("p", { class: "kind" }, shown.category),
        make("h1", {}, shown.name),
        tag,
        make("p", {}, shown.text),
        add,
        said,
        make("p", { class: "note" }, "Free delivery from 100 euros. Thirty days to change your mind."),
      ),
    ),
    make("section", {}, make("h2", {}, "From the same room"), make("div", { class: "grid" }, others.map(card))),
  );
});
