/* The demo shop. Every page calls one function below; what it tells attimo stands in `tell(...)` lines and in
   data-attimo-* attributes, as it would in a real shop. It runs before the pixel: calls wait in an array until then. */
(() => {
  "use strict";
  window.attimo = window.attimo || [];
  const tell = (...call) => window.attimo.push(call);
  const products = window.PRODUCTS;
  const byId = (id) => products.find((one) => one.id === id);
  const money = (amount) => new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" }).format(amount);
  const round = (amount) => Math.round(amount * 100) / 100;
  const $ = (selector) => document.querySelector(selector);
  const query = new URLSearchParams(location.search);

  const read = (key, otherwise) => {
    try {
      return JSON.parse(localStorage.getItem("shop." + key)) || otherwise;
    } catch {
      return otherwise;
    }
  };
  const write = (key, value) => {
    try {
      localStorage.setItem("shop." + key, JSON.stringify(value));
    } catch {
      /* a shop without memory */
    }
  };

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((one) => one != null && one !== false));
    return element;
  }

  /* A product as the Segment spec describes it. */
  const spec = (product, more) => ({
    product_id: product.id,
    sku: product.id,
    name: product.name,
    category: product.category,
    brand: "Casa Lume",
    price: product.price,
    currency: "EUR",
    url: new URL("product.html?id=" + product.id, location.href).href,
    image_url: picture(product),
    ...more,
  });
  const picture = (product) => new URL(`img/${product.id}.svg`, location.href).href;

  // --- the cart: {id, lines: {product id: quantity}, coupon} ---
  const cart = () => read("cart", { id: "cart-" + Date.now().toString(36), lines: {}, coupon: "" });
  const lines = (of = cart()) =>
    Object.entries(of.lines)
      .map(([id, quantity]) => ({ product: byId(id), quantity }))
      .filter(({ product }) => product);
  const percent = (coupon) => {
    const found = /^[A-Z]{2,12}(\d{1,2})$/.exec(coupon);
    return found && Number(found[1]) <= 20 ? Number(found[1]) : 0;
  };

  function totals(of = cart()) {
    const goods = round(lines(of).reduce((sum, { product, quantity }) => sum + product.price * quantity, 0));
    const discount = round((goods * percent(of.coupon)) / 100),
      subtotal = round(goods - discount);
    const shipping = !goods || subtotal >= 100 ? 0 : 6.9;
    return { goods, discount, subtotal, shipping, total: round(subtotal + shipping) };
  }

  function put(product, change) {
    const now = cart();
    now.lines[product.id] = Math.max(0, (now.lines[product.id] || 0) + change);
    if (!now.lines[product.id]) delete now.lines[product.id];
    write("cart", now);
    count();
  }

  function count() {
    const pieces = lines().reduce((sum, { quantity }) => sum + quantity, 0);
    $("#count").textContent = pieces ? ` (${pieces})` : "";
  }

  // --- the frame around every page ---
  function frame() {
    const who = read("user", null);
    $("#header").append(
      make(
        "a",
        { class: "brand", href: "./" },
        make("img", { src: "img/icon.svg", alt: "", width: 32, height: 32 }),
        "Casa Lume",
      ),
      make(
        "nav",
        { "aria-label": "Shop" },
        make("a", { href: "./" }, "Shop"),
        make("a", { href: "cart.html" }, "Cart", make("span", { id: "count" })),
        who
          ? make("button", { class: "link", onclick: signOut }, `Sign out ${who.user_id}`)
          : make("a", { href: "login.html" }, "Sign in"),
        make("a", { href: "/live", class: "live" }, "See it live"),
      ),
    );
    const canada = make("input", {
      type: "checkbox",
      id: "canada",
      onchange: (event) => {
        write("country", event.target.checked ? "CA" : "");
        location.reload();
      },
    });
    canada.checked = read("country", "") === "CA";
    $("#footer").append(
      make("p", {}, "A demo: nothing here is for sale, and nothing leaves this machine."),
      make("label", { for: "canada" }, canada, " Pretend to be in Canada"),
      make("button", { class: "link", id: "privacy", onclick: () => choose(true) }, "Privacy choices"),
    );
    count();
  }

  function signOut() {
    tell("reset");
    write("user", null);
    location.href = "./";
  }

  /* The consent banner: three answers, equally large, none of them chosen for you. */
  function choose(again) {
    if (read("consent", null) && !again) return;
    if ($("#consent")) return;
    const answer = (label, id, analytics, marketing) =>
      make(
        "button",
        {
          class: "button quiet",
          id,
          onclick: () => {
            write("consent", { analytics, marketing });
            tell("consent", { analytics, marketing });
            $("#consent").remove();
          },
        },
        label,
      );
    document.body.append(
      make(
        "section",
        { id: "consent", "aria-label": "Privacy choices" },
        make(
          "p",
          {},
          "May we remember what you look at? ",
          make("span", {}, "Until you choose, this shop tells attimo nothing, and no offer will appear."),
        ),
        make(
          "div",
          { class: "choices" },
          answer("Allow", "consent-allow", true, true),
          answer("Statistics only", "consent-statistics", true, false),
          answer("No", "consent-decline", false, false),
        ),
      ),
    );
  }

  // --- pages ---
  function card(product) {
    return make(
      "a",
      { class: "card", href: "product.html?id=" + product.id },
      make("img", { src: picture(product), alt: "", width: 320, height: 320, loading: "lazy" }),
      make("span", { class: "name" }, product.name),
      make("span", { class: "price" }, money(product.price)),
    );
  }

  function list() {
    const category = query.get("category") || "",
      words = (query.get("q") || "").trim().slice(0, 80);
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
    $("#main").append(
      make(
        "div",
        { class: "hero" },
        make("h1", {}, "Things for slow evenings"),
        make(
          "p",
          {},
          "Twelve objects, chosen with care. Move the pointer out of the window when you have seen enough.",
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
    else
      tell("track", "Product List Viewed", {
        list_id: category || "all",
        category,
        products: found.map((one) => ({ product_id: one.id })),
      });
  }

  function product() {
    const shown = byId(query.get("id"));
    if (!shown) {
      $("#main").append(
        make("p", { class: "empty" }, "There is no such product. ", make("a", { href: "./" }, "Back to the shop")),
      );
      return;
    }
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
    const others = products.filter((one) => one.category === shown.category && one !== shown).slice(0, 3);
    $("#main").append(
      make(
        "article",
        { class: "product" },
        make("img", { src: picture(shown), alt: shown.name, width: 560, height: 560 }),
        make(
          "div",
          {},
          make("p", { class: "kind" }, shown.category),
          make("h1", {}, shown.name),
          make("p", { class: "price" }, money(shown.price)),
          make("p", {}, shown.text),
          add,
          said,
          make("p", { class: "note" }, "Free delivery from 100 euros. Thirty days to change your mind."),
        ),
      ),
      make("section", {}, make("h2", {}, "From the same room"), make("div", { class: "grid" }, others.map(card))),
    );
  }

  const inCart = () => lines().map(({ product, quantity }) => spec(product, { quantity }));

  function cartPage(viewed) {
    const now = cart(),
      sums = totals(now),
      main = $("#main");
    write("cart", now);
    if (viewed !== true)
      tell("track", "Cart Viewed", { cart_id: now.id, currency: "EUR", value: sums.subtotal, products: inCart() });
    main.replaceChildren(make("h1", {}, "Your cart"));
    if (!lines(now).length) {
      main.append(make("p", { class: "empty" }, "Nothing in it yet. ", make("a", { href: "./" }, "Look around")));
      return;
    }
    const change = (product, by) => {
      const before = cart().lines[product.id] || 0;
      put(product, by);
      const removed = before - (cart().lines[product.id] || 0);
      tell(
        "track",
        removed > 0 ? "Product Removed" : "Product Added",
        spec(product, { cart_id: now.id, quantity: Math.abs(removed) }),
      );
      cartPage(true);
    };
    const row = ({ product, quantity }) =>
      make(
        "li",
        {},
        make("img", { src: picture(product), alt: "", width: 88, height: 88 }),
        make(
          "div",
          { class: "what" },
          make("a", { href: "product.html?id=" + product.id }, product.name),
          make("span", { class: "note" }, money(product.price)),
        ),
        make(
          "div",
          { class: "quantity" },
          make("button", { "aria-label": `One ${product.name} less`, onclick: () => change(product, -1) }, "-"),
          make("span", {}, String(quantity)),
          make("button", { "aria-label": `One ${product.name} more`, onclick: () => change(product, 1) }, "+"),
          make("button", { class: "link", onclick: () => change(product, -quantity) }, "Remove"),
        ),
      );
    const code = make("input", {
      name: "code",
      value: now.coupon,
      placeholder: "A code, such as STAY10",
      "aria-label": "Coupon code",
      autocomplete: "off",
    });
    const coupon = make(
      "form",
      {
        class: "coupon",
        onsubmit: (event) => {
          event.preventDefault();
          const entered = code.value.trim().toUpperCase().slice(0, 20),
            good = percent(entered);
          tell("track", good ? "Coupon Applied" : "Coupon Denied", {
            cart_id: now.id,
            coupon_id: entered,
            ...(good ? { discount: round((totals().goods * good) / 100) } : { reason: "unknown code" }),
          });
          write("cart", { ...cart(), coupon: good ? entered : "" });
          cartPage(true);
          if (!good) $(".said").textContent = "We do not know this code.";
        },
      },
      code,
      make("button", { class: "button quiet" }, "Apply"),
      make("p", { class: "said", role: "status" }),
    );
    main.append(
      make(
        "div",
        { class: "columns" },
        make("div", {}, make("ul", { class: "lines" }, lines(now).map(row)), coupon),
        make(
          "aside",
          { class: "sums" },
          sumsOf(sums),
          make("a", { class: "button", href: "checkout.html" }, "Check out"),
        ),
      ),
    );
  }

  function sumsOf(sums) {
    const row = (label, amount) => [make("dt", {}, label), make("dd", {}, money(amount))];
    return make(
      "dl",
      {},
      row("Goods", sums.goods),
      sums.discount ? row("Coupon", -sums.discount) : [],
      row("Delivery", sums.shipping),
      row("Total", sums.total),
    );
  }

  function checkout() {
    const now = cart(),
      sums = totals(now),
      main = $("#main");
    main.append(make("h1", {}, "Check out"));
    if (!lines(now).length) {
      main.append(make("p", { class: "empty" }, "Your cart is empty. ", make("a", { href: "./" }, "Look around")));
      return;
    }
    const order_id = "L" + Date.now().toString(36).toUpperCase();
    const order = {
      order_id,
      currency: "EUR",
      value: sums.subtotal,
      revenue: sums.subtotal,
      subtotal: sums.subtotal,
      shipping: sums.shipping,
      discount: sums.discount,
      total: sums.total,
      ...(now.coupon && { coupon: now.coupon }),
      products: inCart(),
    };
    tell("track", "Checkout Started", order);
    const field = (label, name, more) => make("label", {}, label, make("input", { name, required: true, ...more }));
    main.append(
      make(
        "div",
        { class: "columns" },
        make(
          "form",
          {
            class: "fields",
            onsubmit: (event) => {
              event.preventDefault();
              write("order", order);
              write("cart", null);
              location.href = "order.html";
            },
          },
          field("Name", "name", { value: "Ada Example", autocomplete: "name" }),
          field("Street and town", "address", { value: "1 Quiet Lane, Lumeville", autocomplete: "street-address" }),
          make("p", { class: "note" }, "This is a demo: what you type stays in this form, and no payment is taken."),
          make("button", { class: "button", id: "buy" }, `Buy for ${money(sums.total)}`),
        ),
        make("aside", { class: "sums" }, sumsOf(sums)),
      ),
    );
  }

  function order() {
    const done = read("order", null),
      main = $("#main");
    if (!done) {
      main.append(
        make("p", { class: "empty" }, "There is no order yet. ", make("a", { href: "./" }, "Back to the shop")),
      );
      return;
    }
    // The pixel says "Order Completed" for this, once, however often the page is loaded.
    main.append(
      make(
        "div",
        { class: "thanks", "data-attimo-order": JSON.stringify(done) },
        make("h1", {}, "Thank you"),
        make("p", {}, `Your order ${done.order_id} over ${money(done.total)} is on its way, in spirit.`),
        make("a", { class: "button", href: "./" }, "Back to the shop"),
      ),
    );
  }

  function login() {
    const said = make("p", { class: "said", role: "status" });
    const name = make("input", {
      name: "user_id",
      required: true,
      maxlength: 40,
      pattern: "[\\w.@+\\-]+",
      autocomplete: "username",
      title: "A name or an e-mail address, without spaces",
    });
    const enter = async (event) => {
      event.preventDefault();
      try {
        // A real shop computes user_hash on its server, for the user it has checked.
        const answer = await fetch("/shop/login", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ user_id: name.value.trim() }),
        });
        if (!answer.ok) throw new Error(String(answer.status));
        const user = await answer.json();
        write("user", user);
        tell("identify", user.user_id, { first_name: user.user_id }, { userHash: user.user_hash });
        location.href = "./";
      } catch {
        said.textContent = "The server did not answer. Is attimo running with the demo switched on?";
      }
    };
    $("#main").append(
      make(
        "form",
        { class: "fields narrow", onsubmit: enter },
        make("h1", {}, "Sign in"),
        make(
          "p",
          {},
          "Any name will do; there are no passwords here. Sign in as the same name in another browser to be one person in two places.",
        ),
        make("label", {}, "Name", name),
        make("button", { class: "button" }, "Sign in"),
        said,
      ),
    );
  }

  tell("config", { country: read("country", "") });
  frame();
  ({ list, product, cart: cartPage, checkout, order, login })[document.body.dataset.page]();
  choose();
})();
