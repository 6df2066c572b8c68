/* The sums beside a cart. */
import { make, money } from "./house.js";

export function sumsOf(sums) {
  const row = (label, amount) => [make("dt", {}, label), make("dd", {}, money(amount))];
  return make(
    "dl",
    {},
    row("Goods", sums.goods),
    sums.discount ? row("Coupon " + sums.applied, -sums.discount) : [],
    row("Delivery", sums.shipping),
    row("Total", sums.total),
  );
}
