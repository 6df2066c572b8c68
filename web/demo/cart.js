/* The cart and its discounts. A real shop calculates them on its server, because a browser can be manipulated. */
import { productById, updateCartCount, read, round, segmentProduct, attimo, write } from "./shop.js";

/* {id, lines: {product id: quantity}, coupon: code, discount: terms sent by attimo} */
export const cart = () => read("cart", { id: "cart-" + Date.now().toString(36), lines: {}, coupon: "" });
export const lines = (of = cart()) =>
  Object.entries(of.lines)
    .map(([id, quantity]) => ({ product: productById(id), quantity }))
    .filter(({ product }) => product);
export const inCart = () => lines().map(({ product, quantity }) => segmentProduct(product, { quantity }));

export function changeQuantity(product, change) {
  const now = cart();
  now.lines[product.id] = Math.max(0, (now.lines[product.id] || 0) + change);
  if (!now.lines[product.id]) delete now.lines[product.id];
  write("cart", now);
  updateCartCount();
}

/* Validate a discount sent by attimo; null if it is invalid. */
export function parseDiscount(terms) {
  if (!terms || typeof terms !== "object" || typeof terms.code !== "string" || !terms.code) return null;
  if (terms.currency && terms.currency !== "EUR") return null;
  const number = (value, most) => (value > 0 ? Math.min(Number(value), most) : 0);
  return {
    code: terms.code.slice(0, 40),
    percent: number(terms.percent, 100),
    amount: number(terms.amount, 1e6),
    freeShipping: terms.free_shipping === true,
    minValue: number(terms.min_value, 1e6),
    products: Array.isArray(terms.products) ? terms.products : [],
    expiresAt: number(terms.expires_at, 9e15) || 9e15,
  };
}

/* The discount of a code: the one sent by attimo, else by its digits (STAY10 is ten percent); null if there is none. */
export function discountFor(code, offered = cart().discount) {
  if (offered && offered.code === code) return offered.expiresAt > Date.now() ? offered : null;
  const found = /^[A-Z]{2,12}(\d{1,2})$/.exec(code);
  return found && found[1] > 0 && found[1] <= 20 ? parseDiscount({ code, percent: Number(found[1]) }) : null;
}

/* The amount that a discount takes off these lines; 0 below its minimum value. */
export function discountAmount(discount, of) {
  const sum = (items) => items.reduce((all, { product, quantity }) => all + product.price * quantity, 0);
  const discounted = of.filter(({ product }) => !discount.products.length || discount.products.includes(product.id));
  if (sum(of) < discount.minValue) return 0;
  return round(Math.min(sum(discounted), (sum(discounted) * discount.percent) / 100 + discount.amount));
}

export function totals(of = cart()) {
  const all = lines(of), coupon = discountFor(of.coupon, of.discount);
  const itemsTotal = round(all.reduce((sum, { product, quantity }) => sum + product.price * quantity, 0));
  const discount = coupon ? discountAmount(coupon, all) : 0, subtotal = round(itemsTotal - discount);
  const free = !itemsTotal || subtotal >= 100 || (coupon && coupon.freeShipping && itemsTotal >= coupon.minValue);
  const applied = coupon && (discount || (coupon.freeShipping && itemsTotal >= coupon.minValue)) ? coupon.code : "";
  const shipping = free ? 0 : 6.9, total = round(subtotal + shipping);
  return { itemsTotal, discount, subtotal, shipping, total, applied, minValue: coupon ? coupon.minValue : 0 };
}

/* attimo shows a coupon on this page or showed it on an earlier one: apply it to the cart, unless a valid code was typed
   there, and redraw. Null: it was cancelled. */
const discountListeners = [];
export const onDiscount = (draw) => discountListeners.push(draw);
document.addEventListener("attimo:discount", ({ detail }) => {
  const now = cart(), offered = parseDiscount(detail);
  const typed = now.coupon && discountFor(now.coupon, now.discount) && !(now.discount && now.discount.code === now.coupon);
  now.discount = offered || undefined;
  if (!typed) now.coupon = offered ? offered.code : "";
  write("cart", now);
  discountListeners.forEach((draw) => draw(offered));
});

/* Send "Coupon Applied", once for each code with a discount. */
export function trackCouponApplied() {
  const now = cart(), { applied, discount } = totals(now);
  if (!applied || now.reportedCoupon === applied) return;
  write("cart", { ...now, reportedCoupon: applied });
  attimo("track", "Coupon Applied", { cart_id: now.id, coupon_id: applied, discount });
}
