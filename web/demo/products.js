/* What the demo shop sells: invented, and drawn for it (img/<id>.svg). Prices in euros. */
window.PRODUCTS = [
  { id: "arco-lamp", name: "Arco table lamp", category: "Light", price: 129, text: "A soft dome of light for the corner where you read. Dims by touch, stays cool." },
  { id: "moka-pot", name: "Moka pot, three cups", category: "Kitchen", price: 38, text: "The sound of morning. Cast aluminium, a handle that does not burn, parts you can replace." },
  { id: "tazza-mug", name: "Tazza mug", category: "Kitchen", price: 18, text: "Stoneware with two calm stripes. Holds exactly one long conversation." },
  { id: "luna-blanket", name: "Luna wool blanket", category: "Living", price: 95, text: "Merino, woven tight and brushed once. Heavy enough to feel, light enough to carry outside." },
  { id: "onda-vase", name: "Onda vase", category: "Living", price: 46, text: "Thrown by hand, so that no two waves are alike. Comes without the grass." },
  { id: "sole-candle", name: "Sole candle", category: "Light", price: 24, text: "Rapeseed wax, orange peel and a little smoke. Burns for about fifty hours." },
  { id: "nido-chair", name: "Nido reading chair", category: "Living", price: 420, text: "Deep enough to fold your legs in. Oak feet, a cover you can wash." },
  { id: "cielo-kettle", name: "Cielo kettle", category: "Kitchen", price: 72, text: "A slow spout for people who pour with care. Enamelled steel, for every hob." },
  { id: "erba-plant", name: "Erba in a clay pot", category: "Living", price: 34, text: "Forgives a forgotten week. The pot is unglazed and breathes." },
  { id: "carta-notebook", name: "Carta notebook", category: "Desk", price: 16, text: "160 pages that lie flat, paper that likes fountain pens, and a pencil to begin with." },
  { id: "vento-radio", name: "Vento radio", category: "Desk", price: 149, text: "One dial for the station, one for the volume. Charges by USB, plays for two days." },
  { id: "riva-clock", name: "Riva wall clock", category: "Desk", price: 64, text: "A sweeping second hand that makes no sound. Thirty centimetres across." },
];
