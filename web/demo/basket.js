/* The cart, and what a coupon takes off. A real shop does these sums on its server: what a browser says is a wish. */
import { byId, count, read, round, spec, tell, write } from "./house.js";

/* {id, lines: {product id: quantity}, coupon: its code, promised: a discount that attimo told of} */
export const cart = () => read("cart", { id: "cart-" + Date.now().toString(36), lines: {}, coupon: "" });
export const lines = (of = cart()) =>
  Object.entries(of.lines)
    .map(([id, quantity]) => ({ product: byId(id), quantity }))
    .filter(({ product }) => product);
export const inCart = () => lines().map(({ product, quantity }) => spec(product, { quantity }));

export function put(product, change) {
  const now = cart();
  now.lines[product.id] = Math.max(0, (now.lines[product.id] || 0) + change);
  if (!now.lines[product.id]) delete now.lines[product.id];
  write("cart", now);
  count();
}

/* A discount as attimo tells it, with numbers that can be trusted to be some; null when it is none. */
export function sound(told) {
  if (!told || typeof told !== "object" || typeof told.code !== "string" || !told.code) return null;
  if (told.currency && told.currency !== "EUR") return null;
  const number = (value, most) => (value > 0 ? Math.min(Number(value), most) : 0);
  return {
    code: told.code.slice(0, 40),
    percent: number(told.percent, 100),
    amount: number(told.amount, 1e6),
    free: told.free_shipping === true,
    from: number(told.min_value, 1e6),
    products: Array.isArray(told.products) ? told.products : [],
    until: number(told.expires_at, 9e15) || 9e15,
  };
}

/* What a code is worth: what was promised with it, or by its looks (STAY10 is ten percent). Null: nothing. */
export function worth(code, promised = cart().promised) {
  if (promised && promised.code === code) return promised.until > Date.now() ? promised : null;
  const found = /^[A-Z]{2,12}(\d{1,2})$/.exec(code);
  return found && found[1] > 0 && found[1] <= 20 ? sound({ code, percent: Number(found[1]) }) : null;
}

/* What a discount takes off some lines of goods; 0 below its least value. */
export function off(discount, of) {
  const sum = (some) => some.reduce((all, { product, quantity }) => all + product.price * quantity, 0);
  const meant = of.filter(({ product }) => !discount.products.length || discount.products.includes(product.id));
  if (sum(of) < discount.from) return 0;
  return round(Math.min(sum(meant), (sum(meant) * discount.percent) / 100 + discount.amount));
}

export function totals(of = cart()) {
  const all = lines(of), coupon = worth(of.coupon, of.promised);
  const goods = round(all.reduce((sum, { product, quantity }) => sum + product.price * quantity, 0));
  const discount = coupon ? off(coupon, all) : 0, subtotal = round(goods - discount);
  const free = !goods || subtotal >= 100 || (coupon && coupon.free && goods >= coupon.from);
  const applied = coupon && (discount || (coupon.free && goods >= coupon.from)) ? coupon.code : "";
  const shipping = free ? 0 : 6.9, total = round(subtotal + shipping);
  return { goods, discount, subtotal, shipping, total, applied, from: coupon ? coupon.from : 0 };
}

/* attimo shows a coupon on this page, or showed it on one before: keep it in the cart, unless a good code was typed there;
   draw with it. Null: it is taken back. */
const drawing = [];
export const onDiscount = (draw) => drawing.push(draw);
document.addEventListener("attimo:discount", ({ detail }) => {
  const now = cart(), promised = sound(detail);
  const typed = now.coupon && worth(now.coupon, now.promised) && !(now.promised && now.promised.code === now.coupon);
  now.promised = promised || undefined;
  if (!typed) now.coupon = promised ? promised.code : "";
  write("cart", now);
  drawing.forEach((draw) => draw(promised));
});

/* "Coupon Applied", once for each code that took something off. */
export function sayApplied() {
  const now = cart(), { applied, discount } = totals(now);
  if (!applied || now.said === applied) return;
  write("cart", { ...now, said: applied });
  tell("track", "Coupon Applied", { cart_id: now.id, coupon_id: applied, discount });
}
