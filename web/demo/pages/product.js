import { productById, card, emptyState, element, money, renderPage, imageUrl, products, query, round, segmentProduct } from "../shop.js";
import { cart, discountAmount, onDiscount, changeQuantity } from "../cart.js";

/* The price; with a coupon from attimo, the old and the new one. */
function price(product, discount) {
  const normal = money(product.price), one = [{ product, quantity: 1 }];
  const less = discount ? discountAmount(discount, one) : 0;
  if (less) {
    return [
      element("s", {}, element("span", { class: "visually-hidden" }, "Instead of "), normal),
      " ",
      element("strong", {}, money(round(product.price - less))),
      element("span", { class: "note coupon-note" }, ` with coupon ${discount.code}`),
    ];
  }
  const later = discount && discount.minValue > product.price && discountAmount({ ...discount, minValue: 0 }, one);
  const how = later && (discount.percent ? `${discount.percent} %` : money(discount.amount));
  if (!later) return [normal];
  const hint = ` ${how} less from ${money(discount.minValue)}, with coupon ${discount.code}`;
  return [normal, element("span", { class: "note coupon-note" }, hint)];
}

renderPage((main) => {
  const product = productById(query.get("id"));
  if (!product) return main.append(emptyState("There is no such product.", "Back to the shop"));
  document.title = `${product.name} - Casa Lume`;
  // The pixel reads the product from this, as search engines do.
  const schema = element("script", { type: "application/ld+json" });
  schema.textContent = JSON.stringify({
    "@context": "https://schema.org",
    "@type": "Product",
    sku: product.id,
    name: product.name,
    category: product.category,
    description: product.text,
    brand: { "@type": "Brand", name: "Casa Lume" },
    image: imageUrl(product),
    url: location.href,
    offers: {
      "@type": "Offer",
      price: product.price.toFixed(2),
      priceCurrency: "EUR",
      availability: "https://schema.org/InStock",
    },
  });
  document.head.append(schema);
  const statusText = element("p", { class: "status", role: "status" });
  // The pixel sends "Product Added" on a click.
  const add = element(
    "button",
    {
      class: "button",
      id: "add",
      "data-attimo-add": JSON.stringify(segmentProduct(product, { cart_id: cart().id })),
      onclick: () => {
        changeQuantity(product, 1);
        statusText.replaceChildren("In your cart. ", element("a", { href: "cart.html" }, "Go to the cart"));
      },
    },
    "Add to cart",
  );
  const tag = element("p", { class: "price" }, price(product));
  onDiscount((discount) => tag.replaceChildren(...price(product, discount)));
  const others = products.filter((one) => one.category === product.category && one !== product).slice(0, 3);
  main.append(
    element(
      "article",
      { class: "product" },
      element("img", { src: imageUrl(product), alt: product.name, width: 560, height: 560 }),
      element(
        "div",
        {},
        element("p", { class: "category" }, product.category),
        element("h1", {}, product.name),
        tag,
        element("p", {}, product.text),
        add,
        statusText,
        element("p", { class: "note" }, "Free delivery from 100 euros. Thirty days to change your mind."),
      ),
    ),
    element("section", {}, element("h2", {}, "From the same room"), element("div", { class: "grid" }, others.map(card))),
  );
});
